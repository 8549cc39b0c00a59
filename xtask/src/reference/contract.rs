//! What the XML says: members with their types, and the words in the comment before each.

use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};

use super::Error;

/// An interface of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is, in a few words.
    pub short: String,
    /// What it is.
    pub words: Words,
    /// Its methods, properties and signals, in the order of the file.
    pub members: Vec<Member>,
}

/// A method, a property or a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// "method", "property" or "signal".
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The arguments of a method or a signal.
    pub arguments: Vec<Argument>,
    /// Of a property.
    pub access: Option<Access>,
    /// What it is.
    pub words: Words,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its type, as D-Bus writes it.
    pub signature: String,
    /// Whether it goes in, to a method.
    pub goes_in: bool,
    /// What it is.
    pub words: String,
}

/// What can be done with a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Its type, as D-Bus writes it.
    pub signature: String,
    /// "read", "write" or "readwrite".
    pub access: String,
    /// How its changes are signalled: "true", "const", "false" or "invalidates". Empty: it does not say.
    pub emits: String,
}

/// A comment, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// Paragraphs and lists, without the errors and the version.
    pub text: Vec<String>,
    /// What stands behind "Errors:".
    pub errors: Option<String>,
    /// The version that had it first.
    pub since: Option<String>,
}

/// The interfaces of a file.
///
/// # Errors
/// It is no XML, or a member has no comment that begins with its name.
pub fn interfaces(path: &Path, xml: &str) -> Result<Vec<Interface>, Error> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(xml, options)
        .map_err(|source| Error::Xml { path: path.to_owned(), source })?;
    let nodes = document.descendants().filter(|node| node.has_tag_name("interface"));
    nodes.map(|node| interface(node).map_err(|what| Error::Lacks { path: path.to_owned(), what })).collect()
}

fn interface(node: Node<'_, '_>) -> Result<Interface, String> {
    let name = attribute(node, "name")?;
    let comment = Comment::before(node, &name)?;
    let short = comment.marked.iter().find(|(key, _)| key == "short_description");
    let short = short.map(|(_, words)| words.clone()).unwrap_or_default();
    let is_member = |node: &Node<'_, '_>| ["method", "property", "signal"].contains(&node.tag_name().name());
    let members = node.children().filter(is_member).map(member).collect::<Result<_, _>>()?;
    Ok(Interface { name, short, words: comment.words, members })
}

fn member(node: Node<'_, '_>) -> Result<Member, String> {
    let kind = node.tag_name().name().to_owned();
    let name = attribute(node, "name")?;
    let comment = Comment::before(node, &name)?;
    let mut arguments = Vec::new();
    for arg in node.children().filter(|child| child.has_tag_name("arg")) {
        let of = attribute(arg, "name")?;
        let goes_in = kind == "method" && arg.attribute("direction") != Some("out");
        let words = comment.marked.iter().find(|(key, _)| *key == of).map(|(_, words)| words.clone());
        let signature = attribute(arg, "type")?;
        arguments.push(Argument { name: of, signature, goes_in, words: words.unwrap_or_default() });
    }
    let access = if kind == "property" {
        let emits = node.children().find(|child| {
            child.attribute("name") == Some("org.freedesktop.DBus.Property.EmitsChangedSignal")
        });
        let emits = emits.and_then(|node| node.attribute("value")).unwrap_or_default().to_owned();
        Some(Access { signature: attribute(node, "type")?, access: attribute(node, "access")?, emits })
    } else {
        None
    };
    Ok(Member { kind, name, arguments, access, words: comment.words })
}

fn attribute(node: Node<'_, '_>, name: &str) -> Result<String, String> {
    let line = node.document().text_pos_at(node.range().start).row;
    let found = node.attribute(name).map(str::to_owned);
    found.ok_or_else(|| format!("line {line}: {} has no {name}", node.tag_name().name()))
}

/// A comment: lines marked with `@`, and the rest.
struct Comment {
    marked: Vec<(String, String)>,
    words: Words,
}

impl Comment {
    fn before(node: Node<'_, '_>, name: &str) -> Result<Comment, String> {
        let before = node.prev_siblings().skip(1).find(|sibling| !sibling.is_text());
        let text = before.filter(Node::is_comment).and_then(|comment| comment.text()).unwrap_or_default();
        let text = text.trim();
        let rest = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
        rest.map(Comment::read).ok_or_else(|| format!("no comment \"{name}:\" before {name}"))
    }

    fn read(text: &str) -> Comment {
        let mut comment = Comment { marked: Vec::new(), words: Words::default() };
        for block in text.split("\n\n") {
            comment.block(block);
        }
        comment
    }

    /// A block without empty lines: marked ones, or a paragraph, or a list.
    fn block(&mut self, block: &str) {
        let mut paragraph = String::new();
        let mut in_mark = false;
        for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some((key, words)) = line.strip_prefix('@').and_then(|marked| marked.split_once(':')) {
                self.marked.push((key.to_owned(), words.trim().to_owned()));
                in_mark = true;
            } else if let Some((_, words)) = self.marked.last_mut().filter(|_| in_mark) {
                *words += " ";
                *words += line;
            } else {
                let joint = if paragraph.is_empty() {
                    ""
                } else if line.starts_with("- ") {
                    "\n"
                } else {
                    " "
                };
                paragraph += joint;
                paragraph += line;
            }
        }
        if let Some(since) = paragraph.strip_prefix("Since:") {
            self.words.since = Some(since.trim().to_owned());
            return;
        }
        // Behind the text that they belong to, in the same paragraph. "Errors, below..." is a sentence.
        let (text, errors) = match paragraph.split_once("Errors: ") {
            Some((text, errors)) => (text.trim_end().to_owned(), Some(errors.to_owned())),
            None => (paragraph, None),
        };
        self.words.errors = self.words.errors.take().or(errors);
        if !text.is_empty() {
            self.words.text.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r#"<node>
  <!--
    a.B:
    @short_description: It

    What it is,
    in words:

    - one
      more
    - two

    Since: 0.1
  -->
  <interface name="a.B">
    <!--
      Do:
      @id: which
          of them
      @job: the job

      Does it. Errors: NoSuch (none
      is there), Busy.

      Since: 0.2
    -->
    <method name="Do">
      <arg name="id" type="s" direction="in"/>
      <arg name="job" type="o" direction="out"/>
    </method>
    <!--
      Count:
      How many.

      Since: 0.1
    -->
    <property name="Count" type="u" access="read">
      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="false"/>
    </property>
  </interface>
</node>"#;

    #[test]
    fn members_have_their_types_and_their_words() {
        let found = interfaces(Path::new("a.xml"), XML).expect("it reads").remove(0);
        assert_eq!((found.name.as_str(), found.short.as_str()), ("a.B", "It"));
        assert_eq!(found.words.text, ["What it is, in words:", "- one more\n- two"]);
        let method = &found.members[0];
        let words = &method.words;
        assert_eq!(words.text, ["Does it."]);
        assert_eq!(words.errors.as_deref(), Some("NoSuch (none is there), Busy."));
        assert_eq!(words.since.as_deref(), Some("0.2"));
        let arguments: Vec<_> = method
            .arguments
            .iter()
            .map(|arg| (arg.name.as_str(), arg.signature.as_str(), arg.goes_in, arg.words.as_str()))
            .collect();
        assert_eq!(arguments, [("id", "s", true, "which of them"), ("job", "o", false, "the job")]);
        let access = found.members[1].access.as_ref().expect("a property");
        assert_eq!((access.signature.as_str(), access.emits.as_str()), ("u", "false"));
    }

    #[test]
    fn a_member_without_words_is_told() {
        let bare = XML.replace("      Count:\n", "      Counts:\n");
        let told = interfaces(Path::new("a.xml"), &bare).expect_err("refused").to_string();
        assert_eq!(told, "a.xml: no comment \"Count:\" before Count");
        let nameless = XML.replace("<arg name=\"id\" ", "<arg ");
        let told = interfaces(Path::new("a.xml"), &nameless).expect_err("refused").to_string();
        assert_eq!(told, "a.xml: line 28: arg has no name");
        assert!(interfaces(Path::new("a.xml"), "<node>").is_err());
    }
}
