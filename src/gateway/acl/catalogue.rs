//! What rules can name: commands, their subcommands and their categories, as `COMMAND` describes them.

use crate::gateway::backend::Description;
use ahash::AHashMap;

/// Redis's categories in its order, then Look's own.
pub const CATEGORIES: [&str; 22] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
    "look",
];

/// A command or subcommand: an index into one catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandNumber(pub u32);

/// A set of [`CATEGORIES`], a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Categories(u32);

#[derive(Debug)]
struct Item {
    /// `config|get`
    name: String,
    categories: Categories,
    subcommands: Vec<CommandNumber>,
    /// Strangers may use it, so no rule takes it away.
    no_auth: bool,
}

/// All commands of one version of the code table, and those that the gateway answers.
#[derive(Debug, Default)]
pub struct Catalogue {
    items: Vec<Item>,
    by_name: AHashMap<Vec<u8>, CommandNumber>,
}

impl Catalogue {
    /// `commands` are top-level ones, with their subcommands inside; each name once.
    pub fn new(commands: &[Description]) -> Catalogue {
        let mut catalogue = Catalogue::default();
        for command in commands {
            let number = catalogue.push(command);
            let subcommands = command.subcommands.iter().map(|sub| catalogue.push(sub)).collect();
            catalogue.items[number.0 as usize].subcommands = subcommands;
        }
        catalogue
    }

    fn push(&mut self, command: &Description) -> CommandNumber {
        let number = CommandNumber(self.items.len() as u32);
        let bits = command.categories.iter().filter_map(|c| Catalogue::category(c.as_bytes()));
        self.items.push(Item {
            name: command.name.clone(),
            categories: Categories(bits.fold(0, |all, one| all | one.0)),
            subcommands: Vec::new(),
            no_auth: command.flags.iter().any(|f| f == "no_auth"),
        });
        self.by_name.insert(command.name.to_ascii_lowercase().into_bytes(), number);
        number
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// By full name (`get`, `config|set`), in any case.
    pub fn find(&self, name: &[u8]) -> Option<CommandNumber> {
        self.by_name.get(name).or_else(|| self.by_name.get(&name.to_ascii_lowercase())).copied()
    }
    pub fn name(&self, number: CommandNumber) -> &str {
        &self.items[number.0 as usize].name
    }
    pub fn subcommands(&self, number: CommandNumber) -> &[CommandNumber] {
        &self.items[number.0 as usize].subcommands
    }
    /// Those that strangers may use.
    pub fn no_auth(&self) -> impl Iterator<Item = CommandNumber> + '_ {
        (0u32..).zip(&self.items).filter(|(_, item)| item.no_auth).map(|(number, _)| CommandNumber(number))
    }

    /// By name without `@`, in any case.
    pub fn category(name: &[u8]) -> Option<Categories> {
        let at = CATEGORIES.iter().position(|c| name.eq_ignore_ascii_case(c.as_bytes()))?;
        Some(Categories(1 << at))
    }
    pub fn of_category(&self, category: Categories) -> impl Iterator<Item = CommandNumber> + '_ {
        let hit = move |item: &Item| item.categories.0 & category.0 != 0;
        (0u32..).zip(&self.items).filter(move |(_, item)| hit(item)).map(|(number, _)| CommandNumber(number))
    }
}
