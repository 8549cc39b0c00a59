//! Every verb and every option stands in the man page and in the completions of each shell.

use super::arguments::Arguments;
use clap::{Command, CommandFactory};
use std::process;

const MAN: &str = include_str!("../../../packaging/man/poolctl.1");
const ZSH: &str = include_str!("../../../packaging/completions/_poolctl");
const FISH: &str = include_str!("../../../packaging/completions/poolctl.fish");
const BASH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/completions/poolctl.bash");

fn verbs() -> Vec<Command> {
    Arguments::command().get_subcommands().filter(|verb| verb.get_name() != "help").cloned().collect()
}

/// The long options of a verb, without --help and those that every verb has.
fn options(verb: &Command) -> Vec<String> {
    let longs = verb.get_arguments().filter_map(|argument| argument.get_long());
    longs.filter(|long| *long != "help" && *long != "json").map(str::to_owned).collect()
}

#[test]
fn the_man_page_has_every_verb_and_option() {
    // A verb's entry reaches to the next one; one that has two forms has two.
    let entries: Vec<&str> = MAN.split("\n.It Cm ").skip(1).collect();
    for verb in verbs() {
        let name = verb.get_name();
        let is_its = |entry: &&&str| entry.split_whitespace().next() == Some(name);
        let of_it: String = entries.iter().filter(is_its).copied().collect();
        assert!(!of_it.is_empty(), "poolctl.1 has no {name}");
        let line = format!("\n.Nm\n.Cm {name}\n");
        assert!(MAN.contains(&line), "the synopsis of poolctl.1 has no {name}");
        for option in options(&verb) {
            assert!(of_it.contains(&format!("Fl -{option}")), "poolctl.1: {name} has no --{option}");
        }
    }
    assert!(MAN.contains(".It Fl -json"), "poolctl.1 has no --json");
}

/// What bash offers behind these words.
fn bash(words: &[&str]) -> Vec<String> {
    let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "poolctl() {{ printf 'POOL\\nchat\\n'; }}; source '{BASH}'; COMP_WORDS=({} ''); COMP_CWORD={}; _poolctl; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line.join(" "),
        words.len()
    );
    let output = process::Command::new("bash").args(["-c", &script]).output().expect("bash is there");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_every_verb_and_option() {
    let offered = bash(&["poolctl"]);
    for verb in verbs() {
        let name = verb.get_name();
        assert!(offered.iter().any(|word| word == name), "bash does not offer {name}");
        let offered = bash(&["poolctl", name]);
        for option in options(&verb).iter().map(String::as_str).chain(["json"]) {
            let wanted = format!("--{option}");
            assert!(offered.contains(&wanted), "bash: {name} has no {wanted}: {offered:?}");
        }
        let takes_pools = verb.get_positionals().next().is_some_and(|first| {
            first.get_value_names().is_some_and(|names| names.iter().any(|name| *name == "POOL"))
        });
        if takes_pools && !["register"].contains(&name) {
            assert!(offered.contains(&"chat".to_owned()), "bash: {name} offers no pools");
        }
    }
    assert!(bash(&["poolctl", "--json"]).contains(&"list".to_owned()), "verbs come behind --json too");
}

#[test]
fn zsh_completes_every_verb_and_option() {
    for verb in verbs() {
        let name = verb.get_name();
        assert!(ZSH.contains(&format!("\n        '{name}:")), "zsh does not offer {name}");
        let arms = ZSH.split(";;").filter(|arm| {
            let header = arm.trim_start().lines().next().unwrap_or_default();
            header.split(')').next().is_some_and(|names| names.split('|').any(|word| word.trim() == name))
        });
        let arms: String = arms.collect();
        for option in options(&verb) {
            assert!(arms.contains(&format!("--{option}[")), "zsh: {name} has no --{option}");
        }
    }
    assert!(ZSH.contains("--json["), "zsh has no --json");
}

#[test]
fn fish_completes_every_verb_and_option() {
    let listed = FISH.lines().find_map(|line| line.strip_prefix("set -l verbs ")).expect("a list of verbs");
    for verb in verbs() {
        let name = verb.get_name();
        assert!(listed.split(' ').any(|word| word == name), "fish does not know {name}");
        assert!(FISH.contains(&format!(" -a {name} -d ")), "fish does not offer {name}");
        for option in options(&verb) {
            let offers = |line: &str| {
                let (_, behind) = line.split_once("__fish_seen_subcommand_from ")?;
                let (names, rest) = behind.split_once('\'')?;
                Some(names.split(' ').any(|word| word == name) && rest.contains(&format!(" -l {option} ")))
            };
            assert!(FISH.lines().any(|line| offers(line) == Some(true)), "fish: {name} has no --{option}");
        }
    }
    assert!(FISH.contains("complete -c poolctl -l json "), "fish has no --json");
}
