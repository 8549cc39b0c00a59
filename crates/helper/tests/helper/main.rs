//! The compiled helper, run as systemd runs it, with systemd's end of the notify socket in the test's hands.

mod launch;
mod serving;
mod stage;
mod stand;
