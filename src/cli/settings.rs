//! `p2pfs config`: which settings hold and who said so, and how to change the user's file.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value as Json, json};
use toml_edit::{DocumentMut, Item, Value};

use super::args::Global;
use super::exit::{Class, Failure};
use super::screen::Screen;
use super::setup;
use crate::config::{self, Config, ConfigError, SYSTEM_FILE, TEMPLATE};
use crate::disk;
use crate::nearest::nearest;
use crate::wire::text::safe;

/// Settings that a variable of the environment stands for.
const VARIABLES: [(&str, &str); 10] = [
    ("group.network", "P2PFS_NETWORK"),
    ("tracker.address", "P2PFS_TRACKER"),
    ("tracker.bind", "P2PFS_BIND"),
    ("tracker.port", "P2PFS_PORT"),
    ("tracker.metrics", "P2PFS_METRICS"),
    ("web.listen", "P2PFS_WEB"),
    ("peer.name", "P2PFS_NAME"),
    ("peer.port", "P2PFS_PORT"),
    ("peer.bind", "P2PFS_BIND"),
    ("peer.downloads", "P2PFS_OUT"),
];

/// `p2pfs config …`
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigAction {
    /// All settings that hold, as a configuration file
    Show {
        /// With who said each: a flag, a variable, a file, or nobody
        #[arg(long)]
        origin: bool,
    },
    /// The file that set changes
    Path,
    /// One setting
    Get {
        /// Which, such as peer.port
        key: String,
    },
    /// Change a setting in the user's file, or in that of --config
    Set {
        /// Which, such as peer.port
        key: String,
        /// To what
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Make that file, with every setting and its default in comments
    Init,
}

/// Carries it out.
///
/// # Errors
/// When a file is wrong, there is no such setting, or it cannot be that.
pub fn run(action: &ConfigAction, global: &Global, screen: &Screen) -> Result<(), Failure> {
    match action {
        ConfigAction::Show { origin } => show(&Layers::load(global)?, *origin, screen),
        ConfigAction::Get { key } => {
            let layers = Layers::load(global)?;
            let setting = layers.setting(&known(key)?);
            screen.text(&safe(&setting.bare()))?;
            screen.object(&setting.json())
        }
        ConfigAction::Path => tell_file(&target(global)?, None, screen),
        ConfigAction::Set { key, value } => {
            let (key, path) = (known(key)?, target(global)?);
            set(&path, &key, value)?;
            let what = format!("{} = {value} in", key.name());
            tell_file(&path, Some(&what), screen)
        }
        ConfigAction::Init => {
            let path = target(global)?;
            init(&path)?;
            tell_file(&path, Some("Every setting stands in"), screen)
        }
    }
}

/// A setting's place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    section: String,
    key: String,
}

impl Key {
    fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    fn value_in(&self, document: &DocumentMut) -> Option<Value> {
        let section = document.get(&self.section)?.as_table_like()?;
        section.get(&self.key)?.as_value().cloned()
    }

    /// What holds when nobody says anything.
    fn default(&self) -> Value {
        self.value_in(&template())
            .expect("every key comes from the template")
    }

    /// `text` as this setting's kind of value.
    fn parse(&self, text: &str) -> Option<Value> {
        Some(match self.default() {
            Value::Integer(_) => Value::from(text.trim().parse::<i64>().ok()?),
            Value::Float(_) => Value::from(text.trim().parse::<f64>().ok()?),
            Value::Boolean(_) => Value::from(text.trim().parse::<bool>().ok()?),
            _ => Value::from(text),
        })
    }
}

fn template() -> DocumentMut {
    TEMPLATE.parse().expect("a test reads the template")
}

/// All settings, in the order of the template.
fn keys() -> Vec<Key> {
    let document = template();
    let sections = document.iter().filter_map(|(name, item)| {
        let table = item.as_table_like()?;
        Some((
            name.to_owned(),
            table
                .iter()
                .map(|(key, _)| key.to_owned())
                .collect::<Vec<_>>(),
        ))
    });
    let keys = sections.flat_map(|(section, keys)| {
        keys.into_iter().map(move |key| Key {
            section: section.clone(),
            key,
        })
    });
    keys.collect()
}

fn known(name: &str) -> Result<Key, Failure> {
    let all = keys();
    if let Some(key) = all.iter().find(|key| key.name() == name) {
        return Ok(key.clone());
    }
    let names: Vec<_> = all.iter().map(Key::name).collect();
    let failure = Failure::usage(format!("there is no setting \"{name}\""));
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let same = names.iter().find(|known| last(known) == last(name));
    let meant = nearest(name, names.iter().map(String::as_str)).or(same.map(String::as_str));
    Err(match meant {
        Some(meant) => failure.hint(format!("did you mean \"{meant}\"?")),
        None => failure.hint("p2pfs config show lists all"),
    })
}

/// Who said what a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    File(PathBuf),
    Default,
}

impl Origin {
    fn words(&self) -> String {
        match self {
            Self::Flag(flag) => (*flag).to_owned(),
            Self::Variable(name) => format!("${name}"),
            Self::File(path) => path.display().to_string(),
            Self::Default => "default".to_owned(),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Variable(_) => "environment",
            Self::File(_) => "file",
            Self::Default => "default",
        }
    }
}

/// A setting as it holds.
struct Setting {
    key: Key,
    value: Value,
    origin: Origin,
}

impl Setting {
    fn bare(&self) -> String {
        match &self.value {
            Value::String(text) => text.value().clone(),
            other => other.clone().decorated("", "").to_string(),
        }
    }

    fn json(&self) -> Json {
        let value = match &self.value {
            Value::Integer(number) => json!(number.value()),
            Value::Float(number) => json!(number.value()),
            Value::Boolean(is) => json!(is.value()),
            _ => json!(self.bare()),
        };
        let from = match self.origin {
            Origin::Default => None,
            Origin::Variable(name) => Some(name.to_owned()),
            _ => Some(self.origin.words()),
        };
        json!({
            "v": 1, "type": "setting", "key": self.key.name(), "value": value,
            "origin": self.origin.kind(), "from": from,
        })
    }
}

/// All that says something, the strongest first.
struct Layers {
    network: Option<String>,
    files: Vec<(PathBuf, DocumentMut)>,
}

impl Layers {
    fn load(global: &Global) -> Result<Self, Failure> {
        let mut files = Vec::new();
        let user = setup::user_file();
        let paths = global.config.iter().map(|path| (path.clone(), true));
        let paths = paths.chain(user.map(|path| (path, false)));
        for (path, must_exist) in paths.chain([(SYSTEM_FILE.into(), false)]) {
            match config::read_text(&path)? {
                Some(text) => files.push((path.clone(), document(&text, &path)?)),
                None if must_exist => return Err(ConfigError::missing(&path).into()),
                None => {}
            }
        }
        Ok(Self {
            network: global.network.clone(),
            files,
        })
    }

    fn setting(&self, key: &Key) -> Setting {
        let (value, origin) = self
            .find(key)
            .unwrap_or_else(|| (key.default(), Origin::Default));
        Setting {
            key: key.clone(),
            value,
            origin,
        }
    }

    fn find(&self, key: &Key) -> Option<(Value, Origin)> {
        let name = key.name();
        let variable = VARIABLES.iter().find(|(key, _)| *key == name);
        let said = variable.and_then(|(_, variable)| {
            let text = std::env::var(variable)
                .ok()
                .filter(|text| !text.is_empty())?;
            Some((text, *variable))
        });
        // Where the flag repeats the variable, nobody can tell them apart, nor has to.
        if name == "group.network"
            && let Some(network) = &self.network
            && said.as_ref().is_none_or(|(text, _)| text != network)
        {
            return Some((Value::from(network.as_str()), Origin::Flag("--network")));
        }
        if let Some((text, variable)) = said {
            let value = key.parse(&text).unwrap_or_else(|| Value::from(text));
            return Some((value, Origin::Variable(variable)));
        }
        self.files.iter().find_map(|(path, document)| {
            Some((key.value_in(document)?, Origin::File(path.clone())))
        })
    }
}

/// A file's text, which must make sense as a configuration.
fn document(text: &str, path: &Path) -> Result<DocumentMut, Failure> {
    Config::parse(text, path)?;
    text.parse().map_err(|error: toml_edit::TomlError| {
        Failure::usage(format!("{}: {}", path.display(), error.message()))
    })
}

fn show(layers: &Layers, with_origin: bool, screen: &Screen) -> Result<(), Failure> {
    let mut section = String::new();
    for key in keys() {
        let setting = layers.setting(&key);
        if key.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            screen.text(&format!("{gap}[{}]", key.section))?;
            section.clone_from(&key.section);
        }
        let value = setting.value.clone().decorated("", "");
        let mut line = format!("{} = {value}", key.key);
        if with_origin {
            line = format!("{line:<32} # {}", setting.origin.words());
        }
        screen.text(&safe(&line))?;
        screen.object(&setting.json())?;
    }
    Ok(())
}

/// The file that is changed: that of `--config`, or the user's.
fn target(global: &Global) -> Result<PathBuf, Failure> {
    let path = global.config.clone().or_else(setup::user_file);
    path.ok_or_else(|| Failure::usage("there is no home directory").hint("give --config FILE"))
}

fn tell_file(path: &Path, what: Option<&str>, screen: &Screen) -> Result<(), Failure> {
    let shown = path.display().to_string();
    screen.text(&safe(&match what {
        Some(what) => format!("{what} {shown}"),
        None => shown.clone(),
    }))?;
    screen.object(&json!({
        "v": 1, "type": "config", "path": shown, "exists": path.exists(),
    }))
}

fn local(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| {
        Failure::new(
            Class::Local,
            format!("cannot write {}: {error}", path.display()),
        )
    }
}

/// Changes one setting and leaves everything else in the file as it is.
fn set(path: &Path, key: &Key, text: &str) -> Result<(), Failure> {
    // A link into somebody's collection of settings stays one.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    make_dir(path)?;
    let _turn = disk::lock_private(path).map_err(local(path))?;
    let before = config::read_text(path)?.unwrap_or_default();
    let mut document = document(&before, path)?;
    let wrong = || {
        let kind = key.default();
        Failure::usage(format!("{} cannot be \"{text}\"", key.name()))
            .hint(format!("it is a {}", kind.type_name()))
    };
    let mut value = key.parse(text).ok_or_else(wrong)?;
    let section = document
        .entry(&key.section)
        .or_insert_with(toml_edit::table)
        .as_table_like_mut()
        .ok_or_else(wrong)?;
    if let Some(old) = section.get(&key.key).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    section.insert(&key.key, Item::Value(value));
    let after = document.to_string();
    let checked = Config::parse(&after, path).map_err(|error| match error {
        ConfigError::Syntax { message, .. } => Failure::usage(format!("{}: {message}", key.name())),
        other => other.into(),
    });
    setup::check(&checked?)?;
    write(path, after.as_bytes()).map_err(local(path))
}

fn init(path: &Path) -> Result<(), Failure> {
    make_dir(path)?;
    let _turn = disk::lock_private(path).map_err(local(path))?;
    if path.symlink_metadata().is_ok() {
        let line = format!("{} is there already", path.display());
        return Err(Failure::new(Class::Local, line).hint("p2pfs config set changes it"));
    }
    write(path, commented(TEMPLATE).as_bytes()).map_err(local(path))
}

/// Whoever could read it still can, and the system's file is everybody's to read; any other is its owner's alone.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mode = match path.metadata() {
        Ok(found) => found.permissions().mode() & 0o644,
        Err(_) if path == Path::new(SYSTEM_FILE) => 0o644,
        Err(_) => 0o600,
    };
    if mode & 0o077 == 0 {
        disk::write_private(path, bytes)
    } else {
        disk::write_shown(path, bytes, mode)
    }
}

fn make_dir(path: &Path) -> Result<(), Failure> {
    match path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty() && !dir.exists())
    {
        Some(dir) => disk::create_private_dir(dir).map_err(local(path)),
        None => Ok(()),
    }
}

/// Every setting as a comment: what a later version thinks best holds until somebody says otherwise.
fn commented(text: &str) -> String {
    let line = |line: &str| match line.split_once(" = ") {
        Some((key, _)) if key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_') => {
            format!("# {line}\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_variable_stands_for_a_setting_and_is_read() {
        use clap::CommandFactory as _;
        let names: Vec<_> = keys().iter().map(Key::name).collect();
        let mut read = Vec::new();
        let mut left = vec![super::super::args::Cli::command()];
        while let Some(command) = left.pop() {
            let variables = command.get_arguments().filter_map(clap::Arg::get_env);
            read.extend(variables.map(|name| name.to_string_lossy().into_owned()));
            left.extend(command.get_subcommands().cloned());
        }
        for (key, variable) in VARIABLES {
            assert!(names.iter().any(|name| name == key), "{key}");
            assert!(read.iter().any(|name| name == variable), "{variable}");
        }
    }

    #[test]
    fn a_new_file_says_nothing_until_a_comment_is_taken_away() {
        let text = commented(TEMPLATE);
        let path = Path::new("x");
        assert_eq!(Config::parse(&text, path).unwrap(), Config::default());
        let back: String = text
            .lines()
            .map(|line| {
                let is_setting = line.starts_with("# ") && line.contains(" = ");
                format!("{}\n", if is_setting { &line[2..] } else { line })
            })
            .collect();
        assert_eq!(back, TEMPLATE);
    }

    #[test]
    fn a_change_leaves_the_rest_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/config.toml");
        let set = |key: &str, value: &str| set(&path, &known(key).unwrap(), value);
        set("peer.name", "ana").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "[peer]\nname = \"ana\"\n"
        );
        let text = "# mine\n[peer]   # here\nname = \"ana\" # me\n\n[limits]\nup = \"1MiB\"\n";
        std::fs::write(&path, text).unwrap();
        set("peer.name", "bob").unwrap();
        set("tracker.port", "9001").unwrap();
        set("peer.seed", "false").unwrap();
        let after = std::fs::read_to_string(&path).unwrap();
        let wanted = text
            .replace("ana", "bob")
            .replace("# me\n", "# me\nseed = false\n");
        assert_eq!(after, wanted + "\n[tracker]\nport = 9001\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (key, value) in [
            ("tracker.port", "many"),
            ("tracker.port", "65536"),
            ("peer.port", "9-8"),
            ("limits.up", "fast"),
            ("tracker.bind", "here"),
            ("tracker.heartbeat", "soon"),
            ("tracker.heartbeat", "1h"),
            ("tracker.address", "a b"),
            ("group.network", "Not this"),
            ("peer.prefix", "a/b"),
        ] {
            let failure = set(key, value).unwrap_err();
            assert_eq!(failure.class, Class::Usage, "{key} {value}: {failure}");
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            after,
            "nothing changed"
        );
    }

    #[test]
    fn a_slip_in_a_setting_is_named() {
        assert!(
            known("tracker.prot")
                .unwrap_err()
                .line()
                .contains("tracker.port")
        );
        assert!(known("prefix").unwrap_err().line().contains("peer.prefix"));
        assert!(
            known("nonsense")
                .unwrap_err()
                .line()
                .contains("config show")
        );
    }
}
