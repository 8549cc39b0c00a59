//! The page itself.

use super::contract::{Interface, Member, Words};
use super::example::Example;

const HEAD: &str = "\
<!-- Made of dbus/*.xml and dbus/busctl.txt by `cargo xtask reference`: change those. -->

# The D-Bus API

The daemon owns `org.llamaorch.PoolManager` on the system bus. Types are written as D-Bus writes them: `s` text, `b` true or
false, `u` and `t` numbers of 32 and 64 bits, `d` a fraction, `o` an object's path, `h` a descriptor, `a` an array, `a{sv}` values
by their names.
";

/// The whole page.
pub(super) fn page(interfaces: &[Interface], examples: &[Example]) -> String {
    let mut page = HEAD.to_owned();
    page += "\n| interface | what |\n| --- | --- |\n";
    for Interface { name, short, .. } in interfaces {
        page += &format!("| [`{name}`](#{}) | {} |\n", anchor(name), cell(short));
    }
    for interface in interfaces {
        page += &section(interface, examples);
    }
    page
}

fn section(interface: &Interface, examples: &[Example]) -> String {
    let Interface { name, words, members, .. } = interface;
    let of = |kind: &str| members.iter().filter(|member| member.kind == kind).collect::<Vec<_>>();
    let mut text = format!("\n## `{name}`\n\n{}", paragraphs(words));
    text += &since(words);
    text += &shown(examples, name);
    for (kind, heading) in [("method", "Methods"), ("signal", "Signals")] {
        let members = of(kind);
        if !members.is_empty() {
            text += &format!("\n### {heading} of `{name}`\n");
        }
        for member in members {
            text += &call(name, member, examples);
        }
    }
    let properties = of("property");
    if !properties.is_empty() {
        text += &format!("\n### Properties of `{name}`\n\n");
        text += "| property | type | changes | what | since |\n| --- | --- | --- | --- | --- |\n";
    }
    for member in properties {
        text += &property(member);
    }
    text
}

/// A method or a signal.
fn call(interface: &str, member: &Member, examples: &[Example]) -> String {
    let Member { name, arguments, words, .. } = member;
    let list = |goes_in: bool| {
        let these = arguments.iter().filter(|argument| argument.goes_in == goes_in);
        these
            .map(|argument| format!("{} {}", argument.signature, argument.name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let head = match (member.kind.as_str(), list(true), list(false)) {
        ("signal", _, out) => format!("{name}({out})"),
        (_, into, out) if out.is_empty() => format!("{name}({into})"),
        (_, into, out) => format!("{name}({into}) → {out}"),
    };
    let mut text = format!("\n#### `{head}`\n\n{}", paragraphs(words));
    let explained: Vec<_> = arguments.iter().filter(|argument| !argument.words.is_empty()).collect();
    if !explained.is_empty() {
        text += "\n";
    }
    for argument in explained {
        text += &format!("- `{}`: {}\n", argument.name, plain(&argument.words));
    }
    if let Some(errors) = &words.errors {
        text += &format!("\nErrors: {}\n", plain(errors));
    }
    text += &since(words);
    text += &shown(examples, &format!("{interface}.{name}"));
    text
}

fn property(member: &Member) -> String {
    let Some(access) = &member.access else { return String::new() };
    let changes = match access.emits.as_str() {
        "true" => "signalled",
        "const" => "never",
        "false" => "not signalled",
        "invalidates" => "signalled without the value",
        other => other,
    };
    let words = cell(&member.words.text.join(" "));
    let since = member.words.since.as_deref().unwrap_or_default();
    format!("| `{}` | `{}` | {changes} | {words} | {since} |\n", member.name, access.signature)
}

fn shown(examples: &[Example], of: &str) -> String {
    let mut text = String::new();
    for Example { command, prints, .. } in examples.iter().filter(|example| example.of == of) {
        let prints = if prints.is_empty() { String::new() } else { format!("{prints}\n") };
        text += &format!("\n```console\n$ {command}\n{prints}```\n");
    }
    text
}

fn paragraphs(words: &Words) -> String {
    words.text.iter().map(|paragraph| plain(paragraph) + "\n").collect::<Vec<_>>().join("\n")
}

fn since(words: &Words) -> String {
    words.since.as_ref().map(|since| format!("\nSince {since}.\n")).unwrap_or_default()
}

/// Words that no Markdown is in.
fn plain(words: &str) -> String {
    let mut text = String::new();
    for c in words.chars() {
        if matches!(c, '*' | '_' | '<' | '`' | '[' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn cell(words: &str) -> String {
    plain(words).replace('|', "\\|").replace('\n', " ")
}

/// As GitHub makes them of headings.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Access, Argument};

    #[test]
    fn every_kind_of_member_is_on_the_page() {
        let words = |text: &str, errors: Option<&str>| Words {
            text: vec![text.to_owned()],
            errors: errors.map(str::to_owned),
            since: Some("0.1".to_owned()),
        };
        let argument = |name: &str, goes_in| Argument {
            name: name.to_owned(),
            signature: "s".to_owned(),
            goes_in,
            words: "a_b".to_owned(),
        };
        let member = |kind: &str, name: &str, arguments, access| Member {
            kind: kind.to_owned(),
            name: name.to_owned(),
            arguments,
            access,
            words: words("Words.", (kind == "method").then_some("none.")),
        };
        let access =
            Access { signature: "u".to_owned(), access: "read".to_owned(), emits: "const".to_owned() };
        let interface = Interface {
            name: "a.B".to_owned(),
            short: "It".to_owned(),
            words: words("What it is.", None),
            members: vec![
                member("method", "Do", vec![argument("in", true), argument("out", false)], None),
                member("property", "Count", Vec::new(), Some(access)),
                member("signal", "Done", vec![argument("id", false)], None),
            ],
        };
        let example =
            Example { of: "a.B.Do".to_owned(), command: "busctl".to_owned(), prints: "s x".to_owned() };
        let page = page(&[interface], &[example]);
        let (_, page) = page.split_once("| --- | --- |\n").expect("a table");
        assert_eq!(
            page,
            "\
| [`a.B`](#ab) | It |

## `a.B`

What it is.

Since 0.1.

### Methods of `a.B`

#### `Do(s in) → s out`

Words.

- `in`: a\\_b
- `out`: a\\_b

Errors: none.

Since 0.1.

```console
$ busctl
s x
```

### Signals of `a.B`

#### `Done(s id)`

Words.

- `id`: a\\_b

Since 0.1.

### Properties of `a.B`

| property | type | changes | what | since |
| --- | --- | --- | --- | --- |
| `Count` | `u` | never | Words. | 0.1 |
"
        );
    }
}
