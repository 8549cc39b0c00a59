//! Owns what callers ask of the loop: it is judged at once, and answered once it has come true. A refusal leaves with the
//! next view too: what it is judged by has been signalled by then.

use super::Supervisor;
use super::handle::{Asked, Call, ReloadPool, Told, Wanted};
use crate::config;
use crate::ports::{Clock, Files, Probers, Systemd};
use crate::telemetry;
use pool_core::host::{Answer, LogLine, RequestId};
use pool_core::name::PoolId;
use pool_core::{Denied, Event, Request, decide};
use tokio::sync::oneshot;

impl<S: Systemd, C: Clock, F: Files, P: Probers> Supervisor<S, C, F, P> {
    pub(super) fn called(&mut self, call: Call, events: &mut Vec<Event>) {
        match call {
            Call::Asked(asked) => self.asked(asked, events),
            Call::Left(name) => events.push(Event::CallerLeft(name)),
        }
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
