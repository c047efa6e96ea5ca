//! Cost polynomials: sums of products with non-negative integer coefficients, over sizes that are known before a command runs.
//!
//! Sequence adds, branch takes the maximum coefficient by coefficient, a loop multiplies. Everything saturates.

use crate::base::words::{BytesWord, ListWord};
pub use crate::store::blocks;
use crate::store::extent::LONGEST_MAX;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// Where names of a module's collections are asked for when a polynomial is written: above all slots.
pub const COLLECTIONS: u16 = 0xff00;
/// Most entries that one call may add to a program's collection: more would cost more than any program may.
pub const ADDED_MAX: u64 = 1 << 16;

/// Whose length or depth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Place {
    /// The selected database.
    Db,
    /// The value under the key in these words (slot of its bytes word).
    Key(u16),
    /// The values under the keys of the list argument in this slot: the sum for `Len` and `Total`, the largest for `Depth` and `Longest`.
    Keys(u16),
    /// A collection of the module, by its number.
    Collection(u16),
}

/// An integer that a call's arguments hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Number {
    /// In this slot.
    Word(u16),
    /// Spelled by the bytes argument in this slot.
    Text(u16),
}

/// One size. Slots are words of the call (see `batch::format`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Atom {
    /// Elements of the list argument
    Count(u16),
    /// Integer argument, 0 when negative or absent
    Int(u16),
    /// The integer that a bytes argument spells, 0 when it is negative.
    Text(u16),
    /// 64-byte blocks of a bytes argument
    Blocks(u16),
    /// 64-byte blocks of all byte strings in a list argument: fields of `width`-word elements, one bit each
    BlocksAll { slot: u16, width: u8, fields: u32 },
    /// Entries of a collection or a database; blocks of a string.
    Len(Place),
    /// Blocks of all elements of a collection, of all keys of a database.
    Total(Place),
    /// Blocks that no element of a collection, no key of a database has more of.
    Longest(Place),
    /// `1 + ceil(log64(len))`
    Depth(Place),
    /// The smaller of two bounds.
    Least(Arc<[Poly; 2]>),
    /// `.1[0]` where the integer is negative, else `.1[1]`: positions that count from the end.
    Signed(Number, Arc<[Poly; 2]>),
    /// `.2[1]` where the word of an option or of alternatives is this one, else `.2[0]`.
    Chosen(u16, u64, Arc<[Poly; 2]>),
    /// Inside loop `.0`: a share of the whole that `.1` names; never leaves the front end.
    Each(u16, u8),
}

pub type Atoms = SmallVec<[Atom; 2]>;

/// `terms` are sorted by atoms and have coefficients above 0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Poly {
    terms: Vec<(Atoms, u64)>,
}

/// The two dimensions of a cost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    pub ops: Poly,
    pub locs: Poly,
}

/// Sizes of what is stored, as the evaluator's pinned root has them.
pub trait Stored {
    /// Entries, or blocks of a string.
    fn len(&self, place: Place, words: &[u64]) -> u64;
    /// Blocks of all elements of a collection, of all keys of a database.
    fn total(&self, place: Place, words: &[u64]) -> u64;
    /// Blocks of the longest.
    fn longest(&self, place: Place, words: &[u64]) -> u64;
    /// The integer that the bytes argument in this slot spells; None where the bytes are not at hand.
    fn number(&self, _slot: u16, _words: &[u64]) -> Option<i64> {
        None
    }
    /// Nominal depth, as it may be at the call's end: a call adds at most one entry to a value for each of its words.
    fn depth(&self, place: Place, words: &[u64]) -> u64 {
        let added = if let Place::Collection(_) = place { ADDED_MAX } else { words.len() as u64 };
        depth_of(self.len(place, words).saturating_add(added))
    }
}

/// `1 + ceil(log64(len))`
pub fn depth_of(len: u64) -> u64 {
    let bits = 64 - len.saturating_sub(1).leading_zeros() as u64;
    1 + bits.div_ceil(6)
}

/// Nothing stored: for bounds of commands whose polynomials do not look at state.
pub struct Nothing;
impl Stored for Nothing {
    fn len(&self, _: Place, _: &[u64]) -> u64 {
        0
    }
    fn total(&self, _: Place, _: &[u64]) -> u64 {
        0
    }
    fn longest(&self, _: Place, _: &[u64]) -> u64 {
        0
    }
}

/// As much stored as can be: a bound that is small even so needs no look at state.
pub struct Anything;
impl Stored for Anything {
    fn len(&self, _: Place, _: &[u64]) -> u64 {
        u64::MAX
    }
    fn total(&self, _: Place, _: &[u64]) -> u64 {
        u64::MAX
    }
    fn longest(&self, _: Place, _: &[u64]) -> u64 {
        LONGEST_MAX
    }
}

impl Poly {
    pub fn constant(n: u64) -> Poly {
        Poly { terms: if n == 0 { Vec::new() } else { vec![(Atoms::new(), n)] } }
    }
    pub fn atom(atom: Atom) -> Poly {
        Poly { terms: vec![([atom].into_iter().collect(), 1)] }
    }
    pub fn terms(&self) -> &[(Atoms, u64)] {
        &self.terms
    }
    pub fn is_zero(&self) -> bool {
        self.terms.is_empty()
    }
    /// The value when no atom occurs.
    pub fn as_constant(&self) -> Option<u64> {
        match self.terms.as_slice() {
            [] => Some(0),
            [(atoms, n)] if atoms.is_empty() => Some(*n),
            _ => None,
        }
    }
    /// Does the bound depend on what is stored, other than by depth?
    pub fn has_len(&self) -> bool {
        self.terms.iter().any(|(atoms, _)| atoms.iter().any(Atom::has_len))
    }

    fn combine(&mut self, atoms: &[Atom], n: u64, how: impl Fn(u64, u64) -> u64) {
        if n == 0 {
            return;
        }
        match self.terms.binary_search_by(|(a, _)| a.as_slice().cmp(atoms)) {
            Ok(i) => self.terms[i].1 = how(self.terms[i].1, n),
            Err(i) => self.terms.insert(i, (Atoms::from(atoms), n)),
        }
    }
    pub fn add_term(&mut self, atoms: &[Atom], n: u64) {
        let mut sorted = Atoms::from(atoms);
        sorted.sort();
        self.combine(&sorted, n, u64::saturating_add);
    }
    pub fn add(&mut self, other: &Poly) {
        for (atoms, n) in &other.terms {
            self.combine(atoms, *n, u64::saturating_add);
        }
    }
    pub fn plus(mut self, other: &Poly) -> Poly {
        self.add(other);
        self
    }
    /// The maximum, coefficient by coefficient.
    pub fn max(mut self, other: &Poly) -> Poly {
        for (atoms, n) in &other.terms {
            self.combine(atoms, *n, u64::max);
        }
        self
    }
    pub fn times(&self, other: &Poly) -> Poly {
        let mut product = Poly::default();
        for (a, n) in &self.terms {
            for (b, m) in &other.terms {
                let both: Atoms = a.iter().chain(b).cloned().collect();
                product.add_term(&both, n.saturating_mul(*m));
            }
        }
        product
    }

    /// The cost of a loop from the cost of one turn. Shares of a whole (`Atom::Each` of this loop) add up to that whole: such a
    /// term is not multiplied by the trip count.
    pub fn repeated(&self, trips: &Poly, loop_number: u16, whole: &dyn Fn(u8) -> Poly) -> Poly {
        let mut total = Poly::default();
        for (atoms, n) in &self.terms {
            let (shares, rest): (Atoms, Atoms) = atoms
                .iter()
                .map(|a| a.outside(loop_number, whole))
                .partition(|a| matches!(a, Atom::Each(l, _) if *l == loop_number));
            let mut term = Poly { terms: vec![(rest, *n)] };
            for share in &shares {
                if let Atom::Each(_, kind) = share {
                    term = term.times(&whole(*kind));
                }
            }
            total.add(&if shares.is_empty() { term.times(trips) } else { term });
        }
        total
    }

    /// Every share of a loop's whole replaced by the whole.
    fn wholes(&self, loop_number: u16, whole: &dyn Fn(u8) -> Poly) -> Poly {
        let mut all = Poly::default();
        for (atoms, n) in &self.terms {
            let mut term = Poly::constant(*n);
            for a in atoms {
                term = term.times(&match a {
                    Atom::Each(l, kind) if *l == loop_number => whole(*kind),
                    a => Poly::atom(a.outside(loop_number, whole)),
                });
            }
            all.add(&term);
        }
        all
    }

    /// The smaller of two bounds, exactly.
    pub fn least(&self, other: &Poly) -> Poly {
        if self.excess(other).is_empty() {
            return self.clone();
        }
        if other.excess(self).is_empty() {
            return other.clone();
        }
        let mut two = [self.clone(), other.clone()];
        two.sort();
        Poly::atom(Atom::Least(Arc::new(two)))
    }

    /// `negative` where the integer argument is, else `other`.
    pub fn signed(of: Number, negative: &Poly, other: &Poly) -> Poly {
        if negative == other {
            return negative.clone();
        }
        Poly::atom(Atom::Signed(of, Arc::new([negative.clone(), other.clone()])))
    }

    /// `this` where the word in `slot` is `tag`, else `other`.
    pub fn chosen(slot: u16, tag: u64, this: &Poly, other: &Poly) -> Poly {
        if this == other {
            return this.clone();
        }
        Poly::atom(Atom::Chosen(slot, tag, Arc::new([other.clone(), this.clone()])))
    }

    /// The terms in which `self` exceeds `other`.
    pub fn excess(&self, other: &Poly) -> Vec<(Atoms, u64, u64)> {
        let declared = |atoms: &Atoms| other.terms.iter().find(|(a, _)| a == atoms).map_or(0, |t| t.1);
        let over = self.terms.iter().map(|(a, n)| (a.clone(), *n, declared(a)));
        over.filter(|(_, n, d)| n > d).collect()
    }

    /// The bound for one call. `words` are the call's argument words.
    #[inline]
    pub fn eval(&self, words: &[u64], stored: &dyn Stored) -> u64 {
        let mut sum = 0u64;
        for (atoms, n) in &self.terms {
            let product = atoms.iter().fold(*n, |p, a| p.saturating_mul(a.eval(words, stored)));
            sum = sum.saturating_add(product);
        }
        sum
    }

    /// As `cost` clauses write it; `name_of` names the parameter at a slot.
    pub fn text(&self, name_of: &dyn Fn(u16) -> String) -> String {
        if self.terms.is_empty() {
            return "0".to_owned();
        }
        let term = |(atoms, n): &(Atoms, u64)| {
            let mut parts: Vec<String> = atoms.iter().map(|a| a.text(name_of)).collect();
            if *n != 1 || parts.is_empty() {
                parts.insert(0, n.to_string());
            }
            parts.join("*")
        };
        self.terms.iter().map(term).collect::<Vec<_>>().join(" + ")
    }
}

impl Atom {
    #[inline]
    pub fn eval(&self, words: &[u64], stored: &dyn Stored) -> u64 {
        let word = |slot: u16| words.get(slot as usize).copied().unwrap_or(0);
        match *self {
            Atom::Count(slot) => ListWord(word(slot)).count() as u64,
            Atom::Int(slot) => (word(slot) as i64).max(0) as u64,
            Atom::Blocks(slot) => blocks(BytesWord(word(slot)).len()),
            Atom::BlocksAll { slot, width, fields } => {
                let list = ListWord(word(slot));
                let end = list.first_word() + list.count() * width as usize;
                let elements = words.get(list.first_word()..end).unwrap_or(&[]).chunks_exact(width.max(1) as usize);
                let of_bytes = |e: &[u64]| {
                    let strings = e.iter().enumerate().filter(|(i, _)| fields >> i & 1 == 1);
                    strings.map(|(_, w)| blocks(BytesWord(*w).len())).sum::<u64>()
                };
                elements.map(of_bytes).sum()
            }
            Atom::Len(place) => stored.len(place, words),
            Atom::Total(place) => stored.total(place, words),
            Atom::Longest(place) => stored.longest(place, words),
            Atom::Depth(place) => stored.depth(place, words),
            Atom::Least(ref two) => two[0].eval(words, stored).min(two[1].eval(words, stored)),
            Atom::Signed(of, ref two) => {
                let value = match of {
                    Number::Word(slot) => Some(word(slot) as i64),
                    Number::Text(slot) => stored.number(slot, words),
                };
                two[value.is_some_and(|v| v >= 0) as usize].eval(words, stored)
            }
            Atom::Chosen(slot, tag, ref two) => two[(word(slot) == tag) as usize].eval(words, stored),
            Atom::Text(slot) => stored.number(slot, words).map_or(u64::MAX, |v| v.max(0) as u64),
            Atom::Each(..) => 0,
        }
    }

    /// A size of what is stored, other than a depth.
    pub fn is_of_state(&self) -> bool {
        matches!(self, Atom::Len(_) | Atom::Total(_) | Atom::Longest(_))
    }

    /// Does it depend on what is stored, other than by depth, or choose between bounds?
    pub fn has_len(&self) -> bool {
        self.is_of_state() || matches!(self, Atom::Least(_) | Atom::Signed(..) | Atom::Chosen(..))
    }

    /// The same outside a loop: shares of a whole inside a choice become the whole.
    fn outside(&self, loop_number: u16, whole: &dyn Fn(u8) -> Poly) -> Atom {
        let both = |two: &[Poly; 2]| Arc::new([two[0].wholes(loop_number, whole), two[1].wholes(loop_number, whole)]);
        match self {
            Atom::Least(two) => Atom::Least(both(two)),
            Atom::Signed(of, two) => Atom::Signed(*of, both(two)),
            Atom::Chosen(slot, tag, two) => Atom::Chosen(*slot, *tag, both(two)),
            a => a.clone(),
        }
    }

    fn text(&self, name_of: &dyn Fn(u16) -> String) -> String {
        let of = |p: Place| match p {
            Place::Db => "db".to_owned(),
            Place::Key(slot) | Place::Keys(slot) => name_of(slot),
            Place::Collection(n) => name_of(COLLECTIONS + n),
        };
        match *self {
            Atom::Count(slot) => format!("n({})", name_of(slot)),
            Atom::Int(slot) | Atom::Text(slot) => name_of(slot),
            Atom::Blocks(slot) | Atom::BlocksAll { slot, .. } => format!("blocks({})", name_of(slot)),
            Atom::Len(p) => format!("len({})", of(p)),
            Atom::Total(p) => format!("total({})", of(p)),
            Atom::Longest(p) => format!("longest({})", of(p)),
            Atom::Depth(p) => format!("depth({})", of(p)),
            Atom::Least(ref two) => format!("min({}, {})", two[0].text(name_of), two[1].text(name_of)),
            Atom::Signed(Number::Word(slot) | Number::Text(slot), ref two) => {
                format!("({} < 0 ? {} : {})", name_of(slot), two[0].text(name_of), two[1].text(name_of))
            }
            Atom::Chosen(slot, tag, ref two) => {
                format!("({} is {tag} ? {} : {})", name_of(slot), two[1].text(name_of), two[0].text(name_of))
            }
            Atom::Each(l, k) => format!("each({l}.{k})"),
        }
    }
}

impl fmt::Display for Poly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(&|slot| format!("${slot}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poly(terms: &[(u64, &[Atom])]) -> Poly {
        let mut p = Poly::default();
        terms.iter().for_each(|(n, atoms)| p.add_term(atoms, *n));
        p
    }

    #[test]
    fn sequence_adds_and_branch_takes_the_larger_coefficient_of_each_term() {
        let a = poly(&[(5, &[]), (2, &[Atom::Count(0)])]);
        let b = poly(&[(3, &[]), (7, &[Atom::Count(0)]), (1, &[Atom::Blocks(1)])]);
        assert_eq!(a.clone().plus(&b).to_string(), "8 + 9*n($0) + blocks($1)");
        assert_eq!(a.max(&b).to_string(), "5 + 7*n($0) + blocks($1)");
    }

    #[test]
    fn nested_loops_multiply_their_trips() {
        let turn = Poly::constant(4);
        let inner = turn.repeated(&Poly::atom(Atom::Int(1)), 1, &|_| Poly::default());
        let outer = inner.repeated(&Poly::atom(Atom::Count(0)), 0, &|_| Poly::default());
        assert_eq!(outer.to_string(), "4*n($0)*$1");
    }

    #[test]
    fn shares_of_a_list_add_up_to_the_list_instead_of_being_multiplied() {
        let turn = poly(&[(10, &[]), (3, &[Atom::Each(0, 0)])]);
        let whole = |_| Poly::atom(Atom::BlocksAll { slot: 0, width: 1, fields: 1 });
        let all = turn.repeated(&Poly::atom(Atom::Count(0)), 0, &whole);
        assert_eq!(all.to_string(), "10*n($0) + 3*blocks($0)");
    }

    #[test]
    fn evaluation_reads_sizes_from_the_words_and_saturates() {
        let list = ListWord::new(2, 2).0;
        let words = [-7i64 as u64, list, BytesWord::argument(0, 65).0, BytesWord::argument(65, 1).0];
        let blocks = Atom::BlocksAll { slot: 1, width: 1, fields: 1 };
        assert_eq!(poly(&[(1, &[Atom::Int(0)])]).eval(&words, &Nothing), 0, "negative counts as 0");
        assert_eq!(poly(&[(10, &[Atom::Count(1)]), (1, &[blocks])]).eval(&words, &Nothing), 23);
        assert_eq!(poly(&[(u64::MAX, &[Atom::Count(1)])]).eval(&words, &Nothing), u64::MAX);
        let lying = [ListWord::new(2, u32::MAX).0];
        let beyond = Atom::BlocksAll { slot: 0, width: 1, fields: 1 };
        assert_eq!(poly(&[(1, &[beyond])]).eval(&lying, &Nothing), 0, "a list that is not there has no blocks");
    }

    #[test]
    fn depth_grows_by_one_for_each_factor_of_64() {
        let depths: Vec<u64> = [0, 1, 2, 64, 65, 4096, 4097].into_iter().map(depth_of).collect();
        assert_eq!(depths, [1, 1, 2, 2, 3, 3, 4]);
    }
}
