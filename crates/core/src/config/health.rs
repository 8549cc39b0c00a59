//! `[health]` of a pool file: from what is written to times and counts that fit each other.

use super::check::{Findings, time};
use super::fragment::HealthFragment;
use super::parse_duration;
use super::spec::Health;
use crate::name::Usec;

/// `None` where a value is wrong.
pub(super) fn check(fragment: &HealthFragment, found: &mut Findings) -> Option<Health> {
    let default = Health::default();
    let start_limit =
        time(&["health", "start_limit"], fragment.start_limit.as_deref(), default.start_limit, found);
    let start_timeout =
        time(&["health", "start_timeout"], fragment.start_timeout.as_deref(), default.start_timeout, found);
    let mut within = |key, text: &Option<String>, default, least, most, range| {
        let Some(text) = text else { return Some(default) };
        let time = found.keep(&["health", key], parse_duration(text))?;
        if time < least || time > most {
            found.add(&["health", key], format!("\"{text}\" is out of range; expected {range}"));
            return None;
        }
        Some(time)
    };
    let (short, minute, day) = (Usec::from_millis(100), Usec::from_secs(60), Usec::from_secs(86_400));
    let interval = within("interval", &fragment.interval, default.interval, short, minute, "100ms to 60s");
    let timeout = within("timeout", &fragment.timeout, default.timeout, short, minute, "100ms to 60s");
    let second = Usec::from_secs(1);
    let stall =
        within("stall_timeout", &fragment.stall_timeout, default.stall_timeout, second, day, "1s to 24h");
    let failures = found.keep(&["health", "failures"], failures(fragment.failures));
    let health = Health {
        start_limit: start_limit?,
        start_timeout: start_timeout?,
        interval: interval?,
        timeout: timeout?,
        failures: failures?,
        stall_timeout: stall?,
    };
    let least = health.interval.plus(health.timeout);
    if health.stall_timeout < least {
        found.add(
            &["health", "stall_timeout"],
            format!(
                "{} is shorter than interval and timeout together ({least}): one slow answer would count as a hang",
                health.stall_timeout
            ),
        );
        return None;
    }
    Some(health)
}

fn failures(count: Option<i64>) -> Result<u32, String> {
    let Some(count) = count else { return Ok(Health::default().failures) };
    u32::try_from(count)
        .ok()
        .filter(|count| (1..=100).contains(count))
        .ok_or_else(|| format!("{count} is out of range; expected 1 to 100"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(spoil: impl FnOnce(&mut HealthFragment)) -> Result<Health, Vec<String>> {
        let mut fragment = HealthFragment::default();
        spoil(&mut fragment);
        let mut found = Findings::default();
        let health = check(&fragment, &mut found);
        health.ok_or_else(|| found.0.iter().map(|error| error.key.join(".")).collect())
    }

    #[test]
    fn an_empty_table_gets_the_designs_defaults() {
        let health = run(|_| {}).expect("a valid file");
        assert_eq!((health.start_limit, health.start_timeout), (Usec::from_secs(3600), Usec::from_secs(600)));
        assert_eq!((health.interval, health.timeout), (Usec::from_secs(2), Usec::from_secs(1)));
        assert_eq!((health.failures, health.stall_timeout), (3, Usec::from_secs(120)));
    }

    #[test]
    fn what_a_file_says_is_taken() {
        let health = run(|health| {
            health.interval = Some("100ms".into());
            health.timeout = Some("60s".into());
            health.failures = Some(100);
            health.stall_timeout = Some("60.1s".into());
        });
        let expected = Health {
            interval: Usec::from_millis(100),
            timeout: Usec::from_secs(60),
            failures: 100,
            stall_timeout: Usec::from_millis(60_100),
            ..Health::default()
        };
        assert_eq!(health, Ok(expected));
    }

    #[test]
    fn what_is_out_of_range_is_refused_at_its_key() {
        type Spoil = fn(&mut HealthFragment);
        let cases: [(&str, Spoil); 9] = [
            ("start_limit", |health| health.start_limit = Some("8d".into())),
            ("interval", |health| health.interval = Some("99ms".into())),
            ("interval", |health| health.interval = Some("soon".into())),
            ("timeout", |health| health.timeout = Some("61s".into())),
            ("failures", |health| health.failures = Some(0)),
            ("failures", |health| health.failures = Some(101)),
            ("stall_timeout", |health| health.stall_timeout = Some("999ms".into())),
            ("stall_timeout", |health| health.stall_timeout = Some("25h".into())),
            ("stall_timeout", |health| {
                health.interval = Some("4s".into());
                health.stall_timeout = Some("4.9s".into());
            }),
        ];
        for (key, spoil) in cases {
            assert_eq!(run(spoil), Err(vec![format!("health.{key}")]), "{key}");
        }
    }
}
