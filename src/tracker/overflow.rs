//! Datagrams that the system dropped because the tracker had not read those before them: Linux tells.

use std::net::UdpSocket;

/// Where Linux tells of the UDP sockets of this network: a line each, the inode tenth, the drops last.
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];
const INODE: usize = 9;
const DROPS: usize = 12;

/// The sockets of one tracker, by their inodes.
pub(super) struct Overflow(Vec<u64>);

impl Overflow {
    /// Of these sockets.
    pub(super) fn of(sockets: &[UdpSocket]) -> Self {
        let stats = sockets
            .iter()
            .filter_map(|socket| rustix::fs::fstat(socket).ok());
        Self(stats.map(|stat| stat.st_ino).collect())
    }

    /// Datagrams dropped so far; none where the system does not tell.
    pub(super) fn count(&self) -> u64 {
        let tables = TABLES
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok());
        tables.map(|table| self.drops(&table)).sum()
    }

    fn drops(&self, table: &str) -> u64 {
        let of_line = |line: &str| {
            let mut fields = line.split_ascii_whitespace().skip(INODE);
            let inode = fields.next()?.parse().ok()?;
            let drops = fields.nth(DROPS - INODE - 1)?.parse::<u64>().ok()?;
            self.0.contains(&inode).then_some(drops)
        };
        table.lines().filter_map(of_line).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_ones_own_sockets_are_summed() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  512: 0100007F:2328 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17
  513: 0100007F:2328 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 5
  514: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 99 2 0000000000000000 1000
";
        assert_eq!(Overflow(vec![4711, 4712]).drops(table), 22);
        assert_eq!(Overflow(vec![4713]).drops(table), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_buffer_that_is_full_shows() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let overflow = Overflow::of(std::slice::from_ref(&socket));
        assert_eq!(overflow.count(), 0);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        while overflow.count() == 0 {
            for _ in 0..1000 {
                let _ = sender.send_to(&[0; 1200], to);
            }
        }
    }
}
