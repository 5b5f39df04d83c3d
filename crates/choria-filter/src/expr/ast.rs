//! The tree of an expression.

use super::value::Value;

/// Deepest tree. Bounds the stack that compiling, running and dropping need.
pub(super) const MAX_DEPTH: usize = 120;

/// A node, where it stands and how deep the tree under it is.
#[derive(Debug, Clone)]
pub(super) struct Ast {
    pub(super) kind: Kind,
    /// Character in the text, counted from 1.
    pub(super) at: usize,
    pub(super) depth: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Constant(Value),
    Variable(String),
    /// `#`
    Item,
    /// `#index`
    ItemIndex,
    /// `#acc`
    Accumulator,
    /// `base.name`; with `optional` nil ends the chain.
    Member {
        base: Box<Ast>,
        name: String,
        optional: bool,
    },
    Index {
        base: Box<Ast>,
        index: Box<Ast>,
        optional: bool,
    },
    Slice {
        base: Box<Ast>,
        from: Option<Box<Ast>>,
        to: Option<Box<Ast>>,
    },
    /// Where a `?.` inside that meets nil ends, with nil.
    Chain(Box<Ast>),
    Not(Box<Ast>),
    Minus(Box<Ast>),
    Plus(Box<Ast>),
    Binary {
        operator: Operator,
        left: Box<Ast>,
        right: Box<Ast>,
    },
    /// `matches` with its expression compiled already, if it is constant.
    Matches {
        left: Box<Ast>,
        pattern: Pattern,
    },
    All(Vec<Ast>),
    Any(Vec<Ast>),
    Coalesce(Box<Ast>, Box<Ast>),
    Conditional(Box<Ast>, Box<Ast>, Box<Ast>),
    Let {
        name: String,
        value: Box<Ast>,
        body: Box<Ast>,
    },
    /// Values of all but the last are dropped.
    Sequence(Vec<Ast>),
    List(Vec<Ast>),
    Map(Vec<(Ast, Ast)>),
    Call {
        name: String,
        arguments: Vec<Ast>,
    },
    Method {
        base: Box<Ast>,
        name: String,
        arguments: Vec<Ast>,
        optional: bool,
    },
    Closure {
        function: Closure,
        list: Box<Ast>,
        predicate: Option<Box<Ast>>,
        extra: Option<Box<Ast>>,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Constant(regex::Regex),
    Computed(Box<Ast>),
}

/// Operators with two operands that are always both evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Contains,
    StartsWith,
    EndsWith,
    Range,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

impl Operator {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Range => "..",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "**",
        }
    }

    pub(super) fn is_comparison(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual)
    }
}

/// Functions that apply an expression to each item of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closure {
    All,
    None,
    Any,
    One,
    Filter,
    Map,
    Count,
    Sum,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    GroupBy,
    SortBy,
    Reduce,
}

impl Closure {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "none" => Self::None,
            "any" => Self::Any,
            "one" => Self::One,
            "filter" => Self::Filter,
            "map" => Self::Map,
            "count" => Self::Count,
            "sum" => Self::Sum,
            "find" => Self::Find,
            "findIndex" => Self::FindIndex,
            "findLast" => Self::FindLast,
            "findLastIndex" => Self::FindLastIndex,
            "groupBy" => Self::GroupBy,
            "sortBy" => Self::SortBy,
            "reduce" => Self::Reduce,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::None => "none",
            Self::Any => "any",
            Self::One => "one",
            Self::Filter => "filter",
            Self::Map => "map",
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Find => "find",
            Self::FindIndex => "findIndex",
            Self::FindLast => "findLast",
            Self::FindLastIndex => "findLastIndex",
            Self::GroupBy => "groupBy",
            Self::SortBy => "sortBy",
            Self::Reduce => "reduce",
        }
    }

    pub(super) fn predicate_is_optional(self) -> bool {
        matches!(self, Self::Count | Self::Sum)
    }

    pub(super) fn takes_extra(self) -> bool {
        matches!(self, Self::SortBy | Self::Reduce)
    }
}

impl Kind {
    /// Depth of the deepest child.
    pub(super) fn inner_depth(&self) -> usize {
        let deepest = |list: &[Ast]| list.iter().map(|ast| ast.depth).max().unwrap_or(0);
        let optional = |ast: &Option<Box<Ast>>| ast.as_ref().map_or(0, |ast| ast.depth);
        match self {
            Self::Constant(_) | Self::Variable(_) | Self::Item | Self::ItemIndex | Self::Accumulator => 0,
            Self::Member { base: a, .. } | Self::Chain(a) | Self::Not(a) | Self::Minus(a) | Self::Plus(a) => a.depth,
            Self::Index { base: a, index: b, .. }
            | Self::Binary { left: a, right: b, .. }
            | Self::Coalesce(a, b)
            | Self::Let { value: a, body: b, .. } => a.depth.max(b.depth),
            Self::Matches { left, pattern: Pattern::Constant(_) } => left.depth,
            Self::Matches { left, pattern: Pattern::Computed(right) } => left.depth.max(right.depth),
            Self::Slice { base, from, to } => base.depth.max(optional(from)).max(optional(to)),
            Self::Conditional(a, b, c) => a.depth.max(b.depth).max(c.depth),
            Self::All(list) | Self::Any(list) | Self::Sequence(list) | Self::List(list) => deepest(list),
            Self::Call { arguments, .. } => deepest(arguments),
            Self::Map(entries) => entries.iter().map(|(key, value)| key.depth.max(value.depth)).max().unwrap_or(0),
            Self::Method { base, arguments, .. } => base.depth.max(deepest(arguments)),
            Self::Closure { list, predicate, extra, .. } => list.depth.max(optional(predicate)).max(optional(extra)),
        }
    }
}
