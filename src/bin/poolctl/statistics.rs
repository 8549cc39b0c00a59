//! `statistics`: the numbers that change fast.

use super::columns::{cell, columns};
use super::output::{Failure, Output};
use pool_managerd::client::{Client, Error, Exit, Statistics};
use std::collections::BTreeSet;

/// Shows the numbers of these pools, or of everything where none is named.
pub(crate) async fn show(out: Output, pools: Vec<String>) -> Result<Exit, Failure> {
    let mut all = Client::connect().await?.statistics().await?;
    if let Some(unknown) = pools.iter().find(|id| all.iter().all(|of| of.id != **id)) {
        return Err(Error::NoSuchPool(format!("no pool \"{unknown}\"")).into());
    }
    all.retain(|of| pools.is_empty() || pools.contains(&of.id));
    out.show(&all, |_| table(&all))?;
    Ok(Exit::Success)
}

/// A table for all that have the same numbers, in their order: pools, then devices.
fn table(all: &[Statistics]) -> String {
    let mut text = String::new();
    let mut rest = all;
    while let Some(first) = rest.first() {
        let names: BTreeSet<&String> = first.values.keys().collect();
        let alike = rest.iter().take_while(|of| of.values.keys().eq(names.iter().copied())).count();
        let (these, others) = rest.split_at(alike);
        let headings = names.iter().map(|name| name.to_uppercase());
        let mut rows = vec![["ID".to_owned()].into_iter().chain(headings).collect::<Vec<_>>()];
        rows.extend(these.iter().map(|of| {
            let values = of.values.values().map(|value| cell(&value.to_string()));
            [cell(&of.id)].into_iter().chain(values).collect()
        }));
        text += if text.is_empty() { "" } else { "\n" };
        text += &columns(&rows, |_, _, padded| padded);
        rest = others;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool_managerd::client::Value;

    #[test]
    fn what_has_the_same_numbers_is_in_one_table() {
        let of = |id: &str, values: &[(&str, u64)]| Statistics {
            id: id.into(),
            values: values.iter().map(|(name, value)| ((*name).to_owned(), Value::Count(*value))).collect(),
        };
        let all = [
            of("chat", &[("active_leases", 2), ("in_flight", 13)]),
            of("embed", &[("active_leases", 0), ("in_flight", 0)]),
            of("GPU-1", &[("memory_free", 80)]),
        ];
        assert_eq!(
            table(&all),
            "\
ID     ACTIVE_LEASES  IN_FLIGHT
chat   2              13
embed  0              0

ID     MEMORY_FREE
GPU-1  80
"
        );
        assert_eq!(table(&[]), "");
    }
}
