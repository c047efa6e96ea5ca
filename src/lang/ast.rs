//! The syntax tree: what was written, with spans, before names and types mean anything.

use super::diag::Span;

#[derive(Clone, PartialEq, Debug)]
pub struct Ident {
    pub name: String,
    pub span: Span,
}

#[derive(Clone, Debug, Default)]
pub struct ModuleSyntax {
    pub name: String,
    pub version: u32,
    pub consts: Vec<ConstDef>,
    pub texts: Vec<TextDef>,
    pub fns: Vec<FnDef>,
    pub records: Vec<RecordDef>,
    pub collections: Vec<CollectionDef>,
    pub commands: Vec<CommandDef>,
}

#[derive(Clone, Debug)]
pub struct ConstDef {
    pub name: Ident,
    pub value: Expr,
}

/// `errors NAME = "text"`
#[derive(Clone, Debug)]
pub struct TextDef {
    pub name: Ident,
    pub text: String,
}

/// `record NAME { field: type, … }`
#[derive(Clone, Debug)]
pub struct RecordDef {
    pub name: Ident,
    pub fields: Vec<(Ident, TypeSyntax)>,
}

/// `collection NAME : map<key, value>`
#[derive(Clone, Debug)]
pub struct CollectionDef {
    pub name: Ident,
    /// `map`, `omap`, `set`, `oset`, `seq`
    pub kind: Ident,
    pub types: Vec<TypeSyntax>,
}

#[derive(Clone, Debug)]
pub struct FnDef {
    pub name: Ident,
    pub params: Vec<(Ident, TypeSyntax)>,
    pub result: Option<TypeSyntax>,
    pub body: Block,
}

#[derive(Clone, Debug)]
pub struct CommandDef {
    pub name: Ident,
    pub read: bool,
    pub docs: Vec<String>,
    pub params: Vec<ParamSyntax>,
    /// As written after `->`: documentation.
    pub result: String,
    pub group: String,
    pub since: String,
    pub complexity: String,
    pub flags: Option<Vec<String>>,
    pub cost: Option<(PolySyntax, PolySyntax)>,
    /// `blocks on KEY until TIMEOUT`
    pub blocks: Option<(Ident, Ident)>,
    pub body: Block,
    /// `errors overflow = …` right after the command.
    pub errors: Vec<TextDef>,
}

#[derive(Clone, Debug)]
pub struct ParamSyntax {
    pub name: Ident,
    pub kind: ParamSyntaxKind,
    /// `once`: a flag or option whose words may not be said twice.
    pub once: bool,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum ParamSyntaxKind {
    One(TypeSyntax),
    Flag,
    Opt(Vec<AltSyntax>),
    Rest { element: TypeSyntax, min: u32, max: Option<u32> },
}

#[derive(Clone, Debug)]
pub struct AltSyntax {
    pub word: Ident,
    pub payload: Vec<TypeSyntax>,
}

#[derive(Clone, Debug)]
pub struct TypeSyntax {
    pub kind: TypeSyntaxKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum TypeSyntaxKind {
    Key {
        max: Option<u32>,
    },
    Bytes {
        max: Option<u32>,
    },
    Int {
        min: Option<i64>,
        max: Option<i64>,
        texts: TypeTexts,
    },
    Float {
        texts: TypeTexts,
    },
    Bool,
    Alts(Vec<AltSyntax>),
    Tuple(Vec<(Option<Ident>, TypeSyntax)>),
    Optional(Box<TypeSyntax>),
    /// `enum{ready, done}`
    Enum(Vec<Ident>),
    /// `list<T>[N]`: local, of at most so many elements
    List {
        element: Box<TypeSyntax>,
        max: u32,
    },
    Named(String),
}

/// Error texts of an argument: `else` for whatever is wrong, `range` for a good number out of range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypeTexts {
    pub wrong: Option<String>,
    pub range: Option<String>,
}

/// A declared cost: terms of a coefficient and atoms.
#[derive(Clone, Debug)]
pub struct PolySyntax {
    pub terms: Vec<(u64, Vec<AtomSyntax>)>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum AtomSyntax {
    /// `n(x)`, `blocks(x)`, `len(x)`, `total(x)`, `longest(x)`, `depth(x)`
    Of(String, String),
    /// `min(p, p)`
    Least(Box<[PolySyntax; 2]>),
    /// `(x < 0 ? p : p)`
    Signed(String, Box<[PolySyntax; 2]>),
    /// `(x is 2 ? p : p)`: the number of an option's word
    Chosen(String, u64, Box<[PolySyntax; 2]>),
    /// an integer argument, or `len`, `depth` in a helper's row
    Name(String),
}

#[derive(Clone, Debug, Default)]
pub struct Block {
    pub stmts: Vec<Stmt>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Stmt {
    pub kind: StmtKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum StmtKind {
    Let {
        pattern: Pattern,
        value: Expr,
    },
    /// `value` None: an empty list.
    Var {
        name: Ident,
        ty: Option<TypeSyntax>,
        value: Option<Expr>,
    },
    Assign {
        name: Ident,
        op: Option<BinOp>,
        value: Expr,
    },
    /// `row.field = value`; `more`: the next statement changes the same row, which is written once.
    AssignField {
        on: Ident,
        field: Ident,
        op: Option<BinOp>,
        value: Expr,
        more: bool,
    },
    For {
        pattern: Pattern,
        over: ForOver,
        limit: Option<Expr>,
        body: Block,
        exhausted: Option<Block>,
    },
    Repeat {
        bound: Expr,
        counter: Option<Ident>,
        body: Block,
        exhausted: Option<Block>,
    },
    Break,
    Return(Option<Expr>),
    Fail(Expr),
    Wait,
    Require {
        condition: Expr,
        text: Expr,
    },
    Reply(ReplySyntax),
    Expr(Expr),
}

#[derive(Clone, Debug)]
pub enum ForOver {
    Each(Expr),
    Range(Expr, Expr),
}

#[derive(Clone, Debug)]
pub enum ReplySyntax {
    Value(Expr),
    /// `array(n) { … }`, `array { … }`, `pair { … }`
    Container {
        word: Ident,
        args: Vec<Expr>,
        body: Block,
    },
    /// `status "text"`
    Word {
        word: Ident,
        args: Vec<Expr>,
    },
}

#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum ExprKind {
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
    Bool(bool),
    None,
    Name(String),
    Call {
        name: Ident,
        args: Vec<Expr>,
    },
    /// `name: value` among the arguments of a call
    Named {
        name: Ident,
        value: Box<Expr>,
    },
    /// `args` None: a property.
    Method {
        on: Box<Expr>,
        name: Ident,
        args: Option<Vec<Expr>>,
    },
    Index {
        on: Box<Expr>,
        index: Box<Expr>,
    },
    Unary {
        op: UnOp,
        value: Box<Expr>,
    },
    Binary {
        op: BinOp,
        a: Box<Expr>,
        b: Box<Expr>,
    },
    Is {
        value: Box<Expr>,
        case: Ident,
    },
    Ternary {
        condition: Box<Expr>,
        yes: Box<Expr>,
        no: Box<Expr>,
    },
    /// `value else otherwise`; the block leaves or gives the value.
    Else {
        value: Box<Expr>,
        otherwise: Block,
    },
    Tuple(Vec<Expr>),
    /// `NAME { field, field: e }`
    Record {
        name: Ident,
        fields: Vec<(Ident, Expr)>,
    },
    /// `from .. to`, `from ..= to`: keys of an ordered collection
    Range {
        from: Option<Box<Expr>>,
        to: Option<Box<Expr>>,
        inclusive: bool,
    },
    If {
        condition: Box<Expr>,
        yes: Block,
        no: Option<Block>,
    },
    Match {
        on: Box<Expr>,
        arms: Vec<Arm>,
    },
    Block(Block),
}

#[derive(Clone, Debug)]
pub struct Arm {
    pub patterns: Vec<Pattern>,
    pub guard: Option<Expr>,
    pub body: Block,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Pattern {
    pub kind: PatternKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum PatternKind {
    Any,
    /// A name: binds, or (in `match`, when the type has such a case) tests.
    Name(String),
    Case(String, Vec<Pattern>),
    Int(i64),
    Bytes(Vec<u8>),
    Bool(bool),
    Tuple(Vec<Pattern>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnOp {
    Neg,
    Not,
    BitNot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BinOp {
    Or,
    And,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    BitOr,
    BitXor,
    BitAnd,
    Shl,
    Shr,
    ShrUnsigned,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

/// `type Value = none | int(int) | str(bytes)`
#[derive(Clone, Debug)]
pub struct SumSyntax {
    pub name: Ident,
    pub none: bool,
    pub cases: Vec<(Ident, Vec<TypeSyntax>)>,
}

/// What the helper table declares besides its rows.
#[derive(Clone, Debug, Default)]
pub struct TypeDeclarations {
    pub handles: Vec<(Ident, Ident)>,
    pub sums: Vec<SumSyntax>,
    pub globals: Vec<(Ident, TypeSyntax, i64)>,
}
