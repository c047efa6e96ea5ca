//! The users of the cluster as this node sees them, and the pieces of the system state that hold them: `user:<name>`, whose value is the
//! version of the state in which he was created, a space, and his rules in one line.

use super::catalogue::Catalogue;
use super::rights::Rights;
use super::user::User;
use super::{DEFAULT, RuleError};
use crate::apply::system::SystemState;
use crate::base::Epoch;
use crate::gateway::system::Change;
use std::collections::BTreeMap;
use std::sync::Arc;

const PREFIX: &[u8] = b"user:";

/// Who somebody is: a user who was removed and one of the same name who came later are two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub name: Vec<u8>,
    pub created: Epoch,
}

impl Identity {
    pub fn default_user() -> Identity {
        Identity { name: DEFAULT.to_vec(), created: Epoch::ZERO }
    }
}

/// A user with his permissions, as a connection keeps them.
#[derive(Debug)]
pub struct Account {
    pub id: Identity,
    pub user: User,
    pub rights: Rights,
    /// What the rights speak of.
    pub catalogue: Arc<Catalogue>,
}

/// All users at one version of the system state.
#[derive(Debug)]
pub struct Users {
    /// Of the system state.
    pub version: Epoch,
    pub catalogue: Arc<Catalogue>,
    by_name: BTreeMap<Vec<u8>, Arc<Account>>,
    default: Arc<Account>,
}

impl Users {
    /// `default` is this node's own default user: he counts as long as the cluster has set none.
    pub fn new(state: &SystemState, default: &User, catalogue: Arc<Catalogue>) -> Users {
        let account = |id: Identity, user: User| {
            let rights = Rights::new(&user, &catalogue);
            Arc::new(Account { id, user, rights, catalogue: catalogue.clone() })
        };
        let mut by_name = BTreeMap::new();
        for (name, value) in state.with_prefix(PREFIX) {
            match parse(value) {
                Ok((created, user)) => {
                    let id = Identity { name: name.to_vec(), created };
                    by_name.insert(name.to_vec(), account(id, user));
                }
                // Written by a newer version. Nobody comes in as somebody whose rules are not understood.
                Err(error) => {
                    let name = String::from_utf8_lossy(name);
                    tracing::error!(
                        "user '{name}' is not understood by this version and locked out of this node: {error}"
                    );
                    let id = Identity { name: name.as_bytes().to_vec(), created: Epoch::ZERO };
                    by_name.insert(id.name.clone(), account(id, User::nobody()));
                }
            }
        }
        let own = by_name.entry(DEFAULT.to_vec());
        let default = own.or_insert_with(|| account(Identity::default_user(), default.clone())).clone();
        Users { version: state.version, catalogue, by_name, default }
    }

    pub fn default_user(&self) -> &Arc<Account> {
        &self.default
    }
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }
    /// In order of name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Account>> {
        self.by_name.values()
    }
    /// The same user is still there.
    pub fn has(&self, id: &Identity) -> bool {
        // The default user is always the same one: he cannot be removed.
        id.name == DEFAULT || self.get(&id.name).is_some_and(|account| account.id == *id)
    }

    /// The user of that name, when the password is his. The time that it takes does not tell whether there is one.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<&Arc<Account>> {
        match self.get(name) {
            Some(account) => account.user.admits(password).then_some(account),
            None => {
                User::nobody().admits(password);
                None
            }
        }
    }

    /// The change of the system state that gives `user` this name.
    pub fn set(&self, name: &[u8], user: &User) -> Change {
        let created = self.get(name).map_or(self.version, |account| account.id.created);
        let value = [created.to_string().as_bytes(), b" ", user.describe().as_slice()].concat();
        ([PREFIX, name].concat(), Some(value))
    }
    /// The change that removes him.
    pub fn remove(name: &[u8]) -> Change {
        ([PREFIX, name].concat(), None)
    }
}

/// Whether the cluster has set any user.
pub fn are_set(state: &SystemState) -> bool {
    state.with_prefix(PREFIX).next().is_some()
}

fn parse(value: &[u8]) -> Result<(Epoch, User), RuleError> {
    let space = value.iter().position(|&b| b == b' ').ok_or(RuleError::Syntax)?;
    let created = std::str::from_utf8(&value[..space]).ok().and_then(|n| n.parse().ok()).ok_or(RuleError::Syntax)?;
    Ok((Epoch(created), User::from_line(&value[space + 1..])?))
}
