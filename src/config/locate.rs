//! Where in a file something stands, for messages.

use toml::de::{DeTable, DeValue};

/// A place in a text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Default for Place {
    fn default() -> Self {
        Place { line: 1, column: 1 }
    }
}

/// The place of a byte offset; columns count characters.
pub(super) fn at_offset(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    Place { line: before.matches('\n').count() + 1, column }
}

/// The place of a key, or of the deepest table on its path that is there.
pub(super) fn at_key(text: &str, key: &[&str]) -> Place {
    let Ok(document) = DeTable::parse(text) else { return Place::default() };
    let mut table = Some(document.get_ref());
    let mut found = Place::default();
    for part in key {
        let entry = table.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == part));
        let Some((name, value)) = entry else { break };
        found = at_offset(text, name.span().start);
        table = match value.get_ref() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
    }
    found
}

/// The place of a key in an entry of an array of tables, or of the entry where it has no such key.
pub(super) fn at_entry(text: &str, array: &str, entry: usize, key: &str) -> Place {
    let Ok(document) = DeTable::parse(text) else { return Place::default() };
    let table = document.get_ref().iter().find(|(name, _)| name.get_ref() == array);
    let Some(DeValue::Array(entries)) = table.map(|(_, value)| value.get_ref()) else {
        return Place::default();
    };
    let Some(found) = entries.get(entry) else { return Place::default() };
    let keys = match found.get_ref() {
        DeValue::Table(inner) => inner.iter().find(|(name, _)| name.get_ref() == key),
        _ => None,
    };
    at_offset(text, keys.map_or(found.span().start, |(name, _)| name.span().start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_tables_and_dotted() {
        let text = "a = 1\n[network]\n  listen = \"x\"\n";
        assert_eq!(at_key(text, &["network", "listen"]), Place { line: 3, column: 3 });
        assert_eq!(at_key("network.listen = 1", &["network", "listen"]), Place { line: 1, column: 9 });
        assert_eq!(at_key(text, &["missing"]), Place { line: 1, column: 1 });
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(at_offset("ä = 1\nöx", 9), Place { line: 2, column: 2 });
    }
}
