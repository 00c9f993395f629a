//! File names as people have them: photos, music, series, documents, source code, some of them not ASCII.

use p2pfs::wire::text::FileName;

const SYLLABLES: [&str; 48] = [
    "ba", "con", "der", "mi", "ta", "lo", "ren", "sha", "vi", "ka", "no", "pel", "tri", "su",
    "gar", "en", "ol", "fe", "ric", "wa", "jo", "hel", "zan", "mor", "ti", "ber", "lin", "chi",
    "do", "ster", "an", "pro", "qua", "ex", "ing", "ment", "al", "ver", "un", "sta", "ple", "cra",
    "wood", "light", "hy", "go", "ness", "er",
];
const COMMON: [&str; 32] = [
    "holiday", "final", "report", "Invoice", "draft", "concert", "live", "remix", "summer",
    "Berlin", "notes", "team", "backup", "scan", "copy", "new", "old", "the", "love", "night",
    "world", "data", "main", "test", "user", "service", "index", "config", "Meeting", "lecture",
    "chapter", "winter",
];
const ACCENTED: [&str; 16] = [
    "été",
    "Müller",
    "Österreich",
    "año",
    "façade",
    "crème",
    "Übung",
    "naïve",
    "São",
    "Málaga",
    "Łódź",
    "Dvořák",
    "première",
    "Größe",
    "señor",
    "château",
];
const OTHER_SCRIPTS: [&str; 12] = [
    "写真",
    "会議",
    "資料",
    "отчёт",
    "фото",
    "лето",
    "Ωμέγα",
    "μουσική",
    "한국어",
    "노래",
    "שלום",
    "音楽",
];

/// Draws numbers; the same for the same start.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// The same for an element of so many.
    pub(crate) fn number(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.number(all.len())]
    }

    /// Few words are frequent, most are rare.
    fn word(&mut self) -> String {
        match self.below(40) {
            0 => self.of(&ACCENTED).to_owned(),
            1 if self.below(2) == 0 => self.of(&OTHER_SCRIPTS).to_owned(),
            2..=15 => self.of(&COMMON).to_owned(),
            _ => {
                let vocabulary = 1 << (4 + self.below(13));
                let mut word = Self(self.below(vocabulary));
                let count = 2 + word.below(3);
                let mut text: String = (0..count).map(|_| word.of(&SYLLABLES)).collect();
                if self.below(3) == 0 {
                    text[..1].make_ascii_uppercase();
                }
                text
            }
        }
    }

    fn words(&mut self, least: u64, most: u64, between: &str) -> String {
        let count = least + self.below(most - least + 1);
        let words: Vec<_> = (0..count).map(|_| self.word()).collect();
        words.join(between)
    }

    fn date(&mut self, between: &str) -> String {
        let (year, month, day) = (
            2004 + self.below(22),
            1 + self.below(12),
            1 + self.below(28),
        );
        format!("{year}{between}{month:02}{between}{day:02}")
    }
}

/// The name of that number.
pub(crate) fn name(number: u64) -> FileName {
    let mut draw = Draw(number.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
    let text = match draw.below(100) {
        0..20 => {
            let time = draw.below(86_400);
            let ending = draw.of(&["jpg", "JPG", "heic", "mp4"]);
            format!(
                "IMG_{}_{:06}.{ending}",
                draw.date(""),
                time / 3600 * 10_000 + time % 3600
            )
        }
        20..28 => format!(
            "DSC{:05}{}.JPG",
            draw.below(100_000),
            draw.of(&["", " (1)", "_edit", "-2"])
        ),
        28..33 => format!(
            "{} {} {}.jpg",
            draw.date("-"),
            draw.words(1, 3, " "),
            draw.below(1000)
        ),
        33..53 => {
            let (track, artist, title) = (
                1 + draw.below(20),
                draw.words(1, 2, " "),
                draw.words(1, 4, " "),
            );
            format!(
                "{track:02} - {artist} - {title}.{}",
                draw.of(&["mp3", "flac", "ogg", "m4a"])
            )
        }
        53..68 => {
            let (show, season, episode) = (
                draw.words(1, 3, "."),
                1 + draw.below(12),
                1 + draw.below(24),
            );
            let quality = draw.of(&["720p.WEB", "1080p.BluRay", "1080p.WEB", "2160p.HDR"]);
            let group = draw.word();
            format!("{show}.S{season:02}E{episode:02}.{quality}.x264-{group}.mkv")
        }
        68..85 => {
            let version = draw.of(&["", " final", " v2", "_signed", " (copy)", " DRAFT"]);
            let ending = draw.of(&["pdf", "docx", "xlsx", "odt", "pptx", "txt"]);
            format!(
                "{} {}{version}.{ending}",
                draw.words(1, 4, " "),
                draw.date("-")
            )
        }
        85..97 => {
            let ending = draw.of(&[
                "rs", "py", "c", "h", "js", "go", "java", "md", "json", "html",
            ]);
            format!(
                "{}{}.{ending}",
                draw.words(1, 3, "_"),
                draw.of(&["", "_test", "_old", "2"])
            )
        }
        _ => format!(
            "{}.{}",
            draw.words(2, 5, "-"),
            draw.of(&["zip", "iso", "tar.gz", "7z"])
        ),
    };
    text.parse().expect("words and digits")
}
