//! Examples of calls, as `busctl` makes them.

/// A command, and what it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The member that it shows, with its interface; or an interface. Another name is that of a step between two.
    pub of: String,
    /// What is typed.
    pub command: String,
    /// What is printed. `…` stands for anything.
    pub prints: String,
}

impl Example {
    /// Whether that is what was printed.
    #[must_use]
    pub fn is_met_by(&self, printed: &str) -> bool {
        let mut pieces = self.prints.trim_end().split('…');
        let mut rest = match printed.trim_end().strip_prefix(pieces.next().unwrap_or_default()) {
            Some(rest) => rest,
            None => return false,
        };
        let pieces: Vec<&str> = pieces.collect();
        let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
        for piece in middle {
            match rest.split_once(piece) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// Reads examples: blocks with a name, a line that begins with `$ `, and what is printed. Lines that begin with `#`
/// are not read.
///
/// # Errors
/// A block is not like that; the text says which.
pub fn examples(text: &str) -> Result<Vec<Example>, String> {
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = text.join("\n");
    let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
    blocks.map(|block| example(block).ok_or_else(|| format!("this is no example:\n{block}"))).collect()
}

fn example(block: &str) -> Option<Example> {
    let (of, rest) = block.split_once('\n')?;
    let (command, prints) = rest.split_once('\n').unwrap_or((rest, ""));
    let command = command.strip_prefix("$ ")?;
    Some(Example { of: of.to_owned(), command: command.to_owned(), prints: prints.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_examples() {
        let read = examples("# not this\na.B.C\n$ run it\none\ntwo\n\n\na.B\n$ other\n").expect("it reads");
        let example = |of: &str, command: &str, prints: &str| Example {
            of: of.into(),
            command: command.into(),
            prints: prints.into(),
        };
        assert_eq!(read, [example("a.B.C", "run it", "one\ntwo"), example("a.B", "other", "")]);
        assert!(examples("a.B\nrun it\n").expect_err("refused").contains("run it"));
    }

    #[test]
    fn dots_stand_for_anything() {
        let met = |prints: &str, printed: &str| {
            Example { of: String::new(), command: String::new(), prints: prints.into() }.is_met_by(printed)
        };
        assert!(met("s \"a\"", "s \"a\"\n") && !met("s \"a\"", "s \"ab\"") && !met("s", "s \"a\""));
        assert!(met("s …", "s \"a\"\n") && met("a … c … e", "a b c d e") && !met("a … c … e", "a b d e"));
        assert!(met("", "") && !met("", "x"));
    }
}
