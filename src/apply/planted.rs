//! Bugs planted in a running node, so that tests see them survived or found. `DEBUG` puts them here (refused unless
//! `enable-debug-command` is on); the apply thread takes them at its next batch.

use super::lock;
use crate::lang::env::Env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A helper panics behind its write when a string is stored under this key.
    PanicOn(Vec<u8>),
    /// This node's state becomes another one than its peers'.
    Diverge,
}

#[derive(Default)]
pub struct Planted {
    any: AtomicBool,
    bugs: Mutex<Vec<Bug>>,
    panic_on: Mutex<Option<Vec<u8>>>,
}

impl Planted {
    pub fn plant(&self, bug: Bug) {
        if let Bug::PanicOn(key) = &bug {
            *lock(&self.panic_on) = Some(key.clone());
        }
        lock(&self.bugs).push(bug);
        self.any.store(true, Ordering::Release);
    }

    /// Lets helpers panic where they are to.
    pub fn arm(&self, env: &mut Env) {
        if let Some(key) = &*lock(&self.panic_on) {
            env.plant_panic(key);
        }
    }

    /// One load when there is none.
    pub(super) fn take(&self) -> Vec<Bug> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut lock(&self.bugs))
    }
}
