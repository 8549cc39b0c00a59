//! Owns what callers ask of the loop: it is judged at once, and answered once it has come true. A refusal leaves with the
//! next view too: what it is judged by has been signalled by then. What is only looked at changes nothing and waits for
//! nothing.

#![allow(clippy::disallowed_methods, reason = "systemd is asked beside the loop")]

use super::Supervisor;
use super::handle::{Asked, Call, ReloadPool, Told, Wanted};
use crate::config;
use crate::ports::{Clock, Files, Probers, Systemd, Usage};
use crate::telemetry;
use pool_core::host::{Answer, LogLine, RequestId};
use pool_core::name::{PoolId, ReplicaId, UnitKind, UnitName};
use pool_core::{Denied, Event, Request, decide, view};
use tokio::sync::oneshot;

impl<S: Systemd, C: Clock, F: Files, P: Probers> Supervisor<S, C, F, P> {
    pub(super) fn called(&mut self, call: Call, events: &mut Vec<Event>) {
        match call {
            Call::Asked(asked) => self.asked(asked, events),
            Call::Left(name) => events.push(Event::CallerLeft(name)),
            Call::Usage(replica, reply) => self.usage(&replica, reply),
            Call::UnitLines(replica, reply) => {
                tell(reply, view::unit_lines(&self.state, &replica).unwrap_or_default());
            }
        }
    }

    /// Asks systemd beside the loop.
    fn usage(&self, id: &ReplicaId, reply: oneshot::Sender<Usage>) {
        let pool = self.state.pools.get(&id.pool);
        let replica = pool.and_then(|pool| pool.replicas.iter().find(|replica| replica.id == *id));
        let name = replica.map(|replica| replica.unit_name(UnitKind::Engine));
        let runs = |name: &UnitName| replica.is_some_and(|replica| replica.taken.contains_key(name));
        let Some(name) = name.filter(runs) else { return tell(reply, Usage::default()) };
        let systemd = self.outside.systemd.clone();
        tokio::spawn(async move {
            let usage = systemd.usage(&name).await.unwrap_or_else(|error| {
                tracing::debug!("what {name} uses is not known: {}", telemetry::chain(&error));
                Usage::default()
            });
            tell(reply, usage);
        });
    }

    fn asked(&mut self, asked: Asked, events: &mut Vec<Event>) {
        let Asked { caller, wanted, reply } = asked;
        match wanted {
            Wanted::Request(request) => match decide(&self.state, &caller, &request) {
                Ok(accepted) => {
                    let request = self.expect(reply);
                    events.push(Event::Asked { request, caller, accepted });
                }
                Err(denied) => self.denied.push((reply, Answer::Denied(denied).into())),
            },
            Wanted::Reload => {
                telemetry::write(&LogLine::asked(&caller, "reading of the configuration", Vec::new()));
                let request = self.expect(reply);
                self.read_configuration(vec![request]);
            }
            Wanted::ReloadPool(wanted) => match self.reload_request(wanted) {
                Ok(request) => {
                    self.asked(Asked { caller, wanted: Wanted::Request(request), reply }, events);
                }
                Err(denied) => self.denied.push((reply, Answer::Denied(denied).into())),
            },
        }
    }

    /// A pool's reload with the spec that it means: the pool's own, or that with another model.
    fn reload_request(&self, wanted: ReloadPool) -> Result<Request, Denied> {
        let ReloadPool { pool, model, deadline, force } = wanted;
        let known = pool.parse().ok().and_then(|id: PoolId| self.state.pools.get(&id));
        let revision = match known {
            // Who it is not known is told so by the decision.
            None => None,
            Some(_) if model.is_empty() => None,
            Some(pool) => {
                Some(Box::new(config::with_model(&pool.revision.spec, &model).map_err(Denied::InvalidSpec)?))
            }
        };
        Ok(Request::Reload { pool, revision, deadline, force })
    }

    fn expect(&mut self, reply: oneshot::Sender<Told>) -> RequestId {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.callers.insert(request, reply);
        request
    }
}

/// Answers; a caller that went away is not missed.
fn tell<T>(reply: oneshot::Sender<T>, what: T) {
    if reply.send(what).is_err() {
        tracing::debug!("a caller did not wait for its answer");
    }
}
