//! The numbers that change fast.

use super::Client;
use super::error::Error;
use super::proxy::Named;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use zbus::{OwnedVariant, Variant};

/// The numbers of a pool or a device. Serialized, this is what `poolctl statistics --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// A pool's id, or a device's UUID.
    pub id: String,
    /// Its numbers by their names. A later version may have more.
    pub values: BTreeMap<String, Value>,
}

/// A number, or something else that a later version tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Value {
    /// A count, a size in bytes, or a time in microseconds.
    Count(u64),
    /// A number that may be less than 0.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Yes or no.
    Flag(bool),
    /// A word or a sentence.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(number) => number.fmt(f),
            Value::Integer(number) => number.fmt(f),
            Value::Real(number) => number.fmt(f),
            Value::Flag(flag) => f.write_str(if *flag { "yes" } else { "no" }),
            Value::Text(text) => text.fmt(f),
        }
    }
}

impl Client {
    /// All numbers that change fast: those of every pool, then those of every device, in one call.
    ///
    /// # Errors
    /// The daemon cannot be asked.
    pub async fn statistics(&self) -> Result<Vec<Statistics>, Error> {
        let told = self.manager().await?.get_statistics().await?;
        Ok(told.into_iter().map(|(id, named)| Statistics { id, values: values(named) }).collect())
    }
}

fn values(named: Named) -> BTreeMap<String, Value> {
    named.into_iter().filter_map(|(name, told)| Some((name, value(&told)?))).collect()
}

/// `None`: it is of a type that this version has no form for.
fn value(told: &OwnedVariant) -> Option<Value> {
    Some(match &**told {
        Variant::U8(number) => Value::Count((*number).into()),
        Variant::U16(number) => Value::Count((*number).into()),
        Variant::U32(number) => Value::Count((*number).into()),
        Variant::U64(number) => Value::Count(*number),
        Variant::I16(number) => Value::Integer((*number).into()),
        Variant::I32(number) => Value::Integer((*number).into()),
        Variant::I64(number) => Value::Integer(*number),
        Variant::F64(number) => Value::Real(*number),
        Variant::Bool(flag) => Value::Flag(*flag),
        Variant::Str(text) => Value::Text(text.as_str().to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn numbers_of_every_type_are_read_and_what_has_no_form_is_left_out() {
        let told: [(&str, Variant<'static>); 6] = [
            ("active_leases", 3_u32.into()),
            ("memory_free", u64::MAX.into()),
            ("load", 0.5_f64.into()),
            ("below", (-1_i32).into()),
            ("kind", "pool".into()),
            ("odd", vec![1_u32].into()),
        ];
        let owned = |(name, value): (&str, Variant<'static>)| {
            (name.to_owned(), OwnedVariant::try_from(value).expect("no descriptor is in it"))
        };
        let told: HashMap<String, OwnedVariant> = told.into_iter().map(owned).collect();
        let json = serde_json::to_string(&values(told)).expect("JSON of ours");
        assert_eq!(
            json,
            r#"{"active_leases":3,"below":-1,"kind":"pool","load":0.5,"memory_free":18446744073709551615}"#
        );
        assert_eq!(Value::Flag(true).to_string(), "yes");
    }
}
