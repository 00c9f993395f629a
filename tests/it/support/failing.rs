//! A library that lets chosen system calls on the files of one directory fail.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Group, need};

/// Traps the calls by a filter of the kernel, so that it sees them whatever library they come from. A call
/// with a mark in its last register, which the kernel ignores, passes.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#ifndef __x86_64__
#error "registers of this machine are not known here"
#endif
#define MARK 0x70327066
static const int NUMBERS[] = { SYS_pwrite64, SYS_fdatasync, SYS_fsync, SYS_renameat2, SYS_ftruncate, SYS_openat };
enum { SEEN, FIRST, COUNT, ERRNO, KINDS, FAILED };
static _Atomic uint32_t *control;
static char dir[4096];
static size_t dir_len;
static long pass(int nr, greg_t *r) {
    register long r10 __asm__("r10") = r[REG_R10], r8 __asm__("r8") = r[REG_R8], r9 __asm__("r9") = MARK;
    long done;
    __asm__ volatile("syscall" : "=a"(done)
        : "a"((long)nr), "D"(r[REG_RDI]), "S"(r[REG_RSI]), "d"(r[REG_RDX]), "r"(r10), "r"(r8), "r"(r9)
        : "rcx", "r11", "memory");
    return done;
}
static void handle(int signal, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    int nr = info->si_syscall, kind = 0, is_ours;
    char path[4200] = "", link[64];
    while (NUMBERS[kind] != nr) kind++;
    if (nr == SYS_openat || nr == SYS_renameat2) {
        is_ours = !strncmp((const char *)r[REG_RSI], dir, dir_len);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", (int)r[REG_RDI]);
        is_ours = readlink(link, path, sizeof path - 1) > 0 && !strncmp(path, dir, dir_len);
    }
    if (is_ours && control[KINDS] >> kind & 1) {
        uint32_t seen = ++control[SEEN];
        if (seen >= control[FIRST] && control[FAILED] < control[COUNT]) {
            control[FAILED]++;
            r[REG_RAX] = -(long)control[ERRNO];
            return;
        }
    }
    r[REG_RAX] = pass(nr, r);
}
__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("FAIL_CONTROL"), O_RDWR);
    control = mmap(0, 24, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    dir_len = strlen(strcpy(dir, getenv("FAIL_DIR")));
    struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER };
    sigaction(SIGSYS, &action, 0);
#define TRAP(nr, left) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, left, 0)
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 7, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        TRAP(SYS_pwrite64, 6), TRAP(SYS_fdatasync, 5), TRAP(SYS_fsync, 4),
        TRAP(SYS_renameat2, 3), TRAP(SYS_ftruncate, 2), TRAP(SYS_openat, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = { sizeof code / sizeof *code, code };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) abort();
}
"#;

/// A library made of `source` in C, to be loaded before the system's own.
pub(crate) fn library(group: &Group, name: &str, source: &str) -> PathBuf {
    need("cc");
    let (library, code) = (
        group.path(&format!("{name}.so")),
        group.path(&format!("{name}.c")),
    );
    fs::write(&code, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &code])
        .status();
    assert!(compiled.unwrap().success());
    library
}

pub(crate) const WRITE: u32 = 1;
pub(crate) const SYNC_DATA: u32 = 2;
pub(crate) const SYNC_ALL: u32 = 4;
pub(crate) const RENAME: u32 = 8;
pub(crate) const ANY: u32 = 63;

/// The library, built once for a group.
pub(crate) struct Failing {
    library: PathBuf,
}

impl Failing {
    pub(crate) fn new(group: &Group) -> Self {
        Self {
            library: library(group, "failing", SOURCE),
        }
    }

    /// `command` meets faults in `dir`, as its `Faults` say; none in the beginning.
    pub(crate) fn prepare(&self, command: &mut Command, dir: &Path) -> Faults {
        let control = dir.with_extension("control");
        fs::write(&control, [0; 24]).unwrap();
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAIL_DIR", dir)
            .env("FAIL_CONTROL", &control);
        Faults(
            File::options()
                .read(true)
                .write(true)
                .open(control)
                .unwrap(),
        )
    }
}

/// What fails in one process.
pub(crate) struct Faults(File);

impl Faults {
    /// Of the `kinds` of calls from now on, `count` fail with `errno`, beginning with the `first`, from 1.
    pub(crate) fn set(&self, kinds: u32, first: u32, count: u32, errno: rustix::io::Errno) {
        let errno = errno.raw_os_error().unsigned_abs();
        let fields = [0, first, count, errno, kinds, 0];
        let bytes: Vec<u8> = fields.into_iter().flat_map(u32::to_ne_bytes).collect();
        self.0.write_all_at(&bytes, 0).unwrap();
    }

    /// Nothing fails any more.
    pub(crate) fn end(&self) {
        self.set(0, 0, 0, rustix::io::Errno::IO);
    }

    /// Calls that failed.
    pub(crate) fn failed(&self) -> u32 {
        self.field(5)
    }

    fn field(&self, number: u64) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, number * 4).unwrap();
        u32::from_ne_bytes(bytes)
    }
}
