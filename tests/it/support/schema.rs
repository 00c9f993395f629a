//! Checks objects against `docs/objects.schema.json`: as much of JSON Schema as that file uses, and no more. A
//! field that it does not name is a mistake here, though whoever reads objects shall pass over it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

pub(crate) struct Schema(Value);

/// Words that say nothing about a value.
const NOTES: [&str; 1] = ["description"];

impl Schema {
    pub(crate) fn load() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/objects.schema.json");
        Self(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    }

    /// Types with the names of their fields, those of inner objects too.
    pub(crate) fn kinds(&self) -> Vec<(String, BTreeSet<String>)> {
        let kinds = self.0["$defs"].as_object().unwrap().iter();
        let with_fields = kinds.map(|(kind, schema)| {
            let mut fields = BTreeSet::new();
            names(schema, &mut fields);
            (kind.clone(), fields)
        });
        with_fields.collect()
    }

    /// The type of `object`, which fits it.
    pub(crate) fn check(&self, object: &Value) -> String {
        let kind = object["type"].as_str().unwrap_or_default();
        let schema = &self.0["$defs"][kind];
        assert!(schema.is_object(), "no such type: {object}");
        let listed = self.0["oneOf"].as_array().unwrap();
        let path = format!("#/$defs/{kind}");
        assert!(
            listed.iter().any(|one| one["$ref"] == path.as_str()),
            "{kind}"
        );
        if let Err(why) = fits(object, schema) {
            panic!("{why} in {object}");
        }
        kind.to_owned()
    }
}

fn names(schema: &Value, found: &mut BTreeSet<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        found.insert(name.clone());
        names(inner, found);
        names(&inner["items"], found);
    }
}

fn fits(value: &Value, schema: &Value) -> Result<(), String> {
    for (word, rule) in schema.as_object().unwrap() {
        let is_so = match word.as_str() {
            "type" => match rule {
                Value::String(name) => is_of(value, name),
                rule => rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|name| is_of(value, name.as_str().unwrap())),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| number <= rule.as_f64().unwrap()),
            "pattern" => value
                .as_str()
                .is_none_or(|text| matches(text, rule.as_str().unwrap())),
            "required" => {
                let mut missing = rule.as_array().unwrap().iter();
                missing.all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "properties" => {
                for (name, inner) in value.as_object().unwrap() {
                    let known = rule.get(name).ok_or(format!("{name} is not told"))?;
                    fits(inner, known).map_err(|why| format!("{name}: {why}"))?;
                }
                true
            }
            "additionalProperties" => {
                let mut inner = value.as_object().unwrap().values();
                inner.try_for_each(|one| fits(one, rule))?;
                true
            }
            "items" => {
                // What is no list has none.
                let mut items = value.as_array().into_iter().flatten();
                items.try_for_each(|one| fits(one, rule))?;
                true
            }
            note if NOTES.contains(&note) => true,
            other => panic!("the checker does not know {other}"),
        };
        if !is_so {
            return Err(format!("{word} {rule} does not hold of {value}"));
        }
    }
    Ok(())
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the checker does not know the type {other}"),
    }
}

/// Does all of `text` fit the pattern? Classes, groups without alternatives, counts and `+`.
fn matches(text: &str, pattern: &str) -> bool {
    let inner = pattern
        .strip_prefix('^')
        .and_then(|rest| rest.strip_suffix('$'));
    let inner: Vec<char> = inner.expect("whole texts only").chars().collect();
    let text: Vec<char> = text.chars().collect();
    rest_fits(&text, &inner).is_some_and(<[char]>::is_empty)
}

/// What is left of `text` behind all of `pattern`; every repetition takes as much as it can.
fn rest_fits<'a>(mut text: &'a [char], mut pattern: &[char]) -> Option<&'a [char]> {
    while let Some(first) = pattern.first() {
        let end = match first {
            '[' => pattern.iter().position(|c| *c == ']')? + 1,
            '(' => pattern.iter().position(|c| *c == ')')? + 1,
            _ => 1,
        };
        let (atom, behind) = pattern.split_at(end);
        let (least, most, used) = match behind {
            ['+', ..] => (1, usize::MAX, 1),
            ['{', ..] => {
                let close = behind.iter().position(|c| *c == '}')?;
                let count: String = behind[1..close].iter().collect();
                let count = count.parse().unwrap();
                (count, count, close + 1)
            }
            _ => (1, 1, 0),
        };
        let mut times = 0;
        while times < most {
            let next = match atom {
                ['(', inner @ .., ')'] => rest_fits(text, inner),
                ['[', inner @ .., ']'] => text
                    .split_first()
                    .and_then(|(c, rest)| in_class(*c, inner).then_some(rest)),
                other => text
                    .split_first()
                    .and_then(|(c, rest)| (*c == other[0]).then_some(rest)),
            };
            let Some(next) = next else { break };
            (text, times) = (next, times + 1);
        }
        if times < least {
            return None;
        }
        pattern = &behind[used..];
    }
    Some(text)
}

fn in_class(c: char, class: &[char]) -> bool {
    match class {
        [] => false,
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&c) || in_class(c, rest),
        [one, rest @ ..] => *one == c || in_class(c, rest),
    }
}

#[test]
fn the_checker_sees_what_does_not_fit() {
    let schema = Schema::load();
    let print = ["ab27"; 8].join("-");
    let good = serde_json::json!({
        "v": 1, "type": "holder", "user": "ana", "addresses": ["192.0.2.1:1"], "key": print,
        "id": format!("b3:{}", "0f".repeat(32)),
    });
    assert_eq!(schema.check(&good), "holder");
    let with = |name: &str, value: Value| {
        let mut object = good.clone();
        object[name] = value;
        object
    };
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("user");
    for wrong in [
        with("v", 2.into()),
        with("user", 1.into()),
        with("addresses", vec![1].into()),
        with("key", print[1..].into()),
        with("id", "b3:0f".into()),
        with("more", 1.into()),
        without,
    ] {
        let found = fits(&wrong, &schema.0["$defs"]["holder"]);
        assert!(found.is_err(), "{wrong}");
    }
}
