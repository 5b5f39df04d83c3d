//! Tokens to a tree.

use super::ast::{Ast, Closure, Kind, MAX_DEPTH, Operator, Pattern};
use super::token::{Placed, Token};
use super::value::Value;
use super::{CompileError, Scope};
use crate::regex::go_regex;

/// What an operator between two operands does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Infix {
    Pipe,
    Or,
    And,
    Coalesce,
    Matches,
    Plain(Operator),
}

/// The operator that a token spells, and how tightly it binds.
fn infix(token: &Token) -> Option<(Infix, u16)> {
    let text = match token {
        Token::Symbol(text) => text,
        Token::Name(text) => text.as_str(),
        _ => return None,
    };
    Some(match text {
        "|" => (Infix::Pipe, 0),
        "or" | "||" => (Infix::Or, 10),
        "and" | "&&" => (Infix::And, 15),
        "==" => (Infix::Plain(Operator::Equal), 20),
        "!=" => (Infix::Plain(Operator::NotEqual), 20),
        "<" => (Infix::Plain(Operator::Less), 20),
        "<=" => (Infix::Plain(Operator::LessOrEqual), 20),
        ">" => (Infix::Plain(Operator::Greater), 20),
        ">=" => (Infix::Plain(Operator::GreaterOrEqual), 20),
        "in" => (Infix::Plain(Operator::In), 20),
        "matches" => (Infix::Matches, 20),
        "contains" => (Infix::Plain(Operator::Contains), 20),
        "startsWith" => (Infix::Plain(Operator::StartsWith), 20),
        "endsWith" => (Infix::Plain(Operator::EndsWith), 20),
        ".." => (Infix::Plain(Operator::Range), 25),
        "+" => (Infix::Plain(Operator::Add), 30),
        "-" => (Infix::Plain(Operator::Subtract), 30),
        "*" => (Infix::Plain(Operator::Multiply), 60),
        "/" => (Infix::Plain(Operator::Divide), 60),
        "%" => (Infix::Plain(Operator::Modulo), 60),
        "**" | "^" => (Infix::Plain(Operator::Power), 100),
        "??" => (Infix::Coalesce, 500),
        _ => return None,
    })
}

/// Words that are no variables.
const KEYWORDS: [&str; 14] = [
    "not",
    "and",
    "or",
    "in",
    "matches",
    "contains",
    "startsWith",
    "endsWith",
    "let",
    "if",
    "else",
    "true",
    "false",
    "nil",
];

pub(super) struct Parser<'s> {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
    closures: usize,
    scope: &'s Scope,
}

type Parsed = Result<Ast, CompileError>;

impl<'s> Parser<'s> {
    pub(super) fn new(tokens: Vec<Placed>, scope: &'s Scope) -> Self {
        Self { tokens, at: 0, depth: 0, closures: 0, scope }
    }

    pub(super) fn parse(mut self) -> Parsed {
        let root = self.sequence()?;
        match self.token() {
            Token::End => Ok(root),
            token => Err(self.unexpected(&token.clone())),
        }
    }

    fn token(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].token
    }

    fn next_token(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token
    }

    fn position(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].at
    }

    fn advance(&mut self) -> Token {
        let token = self.token().clone();
        self.at += 1;
        token
    }

    fn error(&self, detail: impl Into<String>) -> CompileError {
        CompileError { detail: detail.into(), position: self.position() }
    }

    fn unexpected(&self, token: &Token) -> CompileError {
        self.error(match token {
            Token::End => "unexpected end".to_owned(),
            Token::Symbol(text) => format!("unexpected {text}"),
            Token::Name(text) => format!("unexpected word {text}"),
            Token::Pointer(_) => "# is only for predicates; comments begin with //".to_owned(),
            Token::Int(_) | Token::Float(_) => "unexpected number".to_owned(),
            Token::Text(_) => "unexpected text".to_owned(),
        })
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.token(), Token::Symbol(text) if *text == symbol)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.token(), Token::Name(text) if text == word)
    }

    fn skip(&mut self, symbol: &str) -> bool {
        let there = self.is(symbol);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.skip(symbol) {
            Ok(())
        } else {
            let found = self.unexpected(self.token());
            Err(CompileError { detail: format!("{}, expected {symbol}", found.detail), ..found })
        }
    }

    fn node(&self, kind: Kind, at: usize) -> Parsed {
        let depth = kind.inner_depth() + 1;
        if depth > MAX_DEPTH {
            return Err(CompileError { detail: "expression nests too deeply".to_owned(), position: at });
        }
        Ok(Ast { kind, at, depth })
    }

    /// `a; b; c`
    fn sequence(&mut self) -> Parsed {
        let at = self.position();
        let mut list = vec![self.expression(0)?];
        while self.skip(";") && !matches!(self.token(), Token::End) && !self.is("}") && !self.is(")") {
            list.push(self.expression(0)?);
        }
        if list.len() == 1 { Ok(list.remove(0)) } else { self.node(Kind::Sequence(list), at) }
    }

    fn expression(&mut self, tightness: u16) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("expression nests too deeply"));
        }
        let parsed = self.expression_inner(tightness);
        self.depth -= 1;
        parsed
    }

    fn expression_inner(&mut self, tightness: u16) -> Parsed {
        if tightness == 0 && self.is_word("let") {
            return self.variable();
        }
        if tightness == 0 && self.is_word("if") {
            return self.branches();
        }
        let mut left = self.prefix()?;
        let mut after_coalesce = false;
        loop {
            let negated = self.is_word("not");
            let token = if negated { self.next_token() } else { self.token() };
            let Some((operator, binds)) = infix(token) else {
                if negated {
                    return Err(self.unexpected(&self.token().clone()));
                }
                break;
            };
            if binds < tightness {
                break;
            }
            let at = self.position();
            if negated
                && !matches!(
                    operator,
                    Infix::Matches
                        | Infix::Plain(Operator::In | Operator::Contains | Operator::StartsWith | Operator::EndsWith)
                )
            {
                return Err(self.unexpected(&self.next_token().clone()));
            }
            if after_coalesce && !matches!(operator, Infix::Coalesce | Infix::Pipe) {
                return Err(self.error("?? cannot stand beside another operator: put it into parentheses"));
            }
            self.at += 1 + usize::from(negated);
            left = self.infix(left, operator, binds, at)?;
            if negated {
                left = self.node(Kind::Not(Box::new(left)), at)?;
            }
            after_coalesce = operator == Infix::Coalesce;
        }
        if tightness == 0 { self.ternary(left) } else { Ok(left) }
    }

    fn infix(&mut self, left: Ast, operator: Infix, binds: u16, at: usize) -> Parsed {
        match operator {
            Infix::Pipe => self.pipe(left, at),
            Infix::Or => {
                let right = self.expression(binds + 1)?;
                let list = match left.kind {
                    Kind::Any(mut list) => {
                        list.push(right);
                        list
                    }
                    _ => vec![left, right],
                };
                self.node(Kind::Any(list), at)
            }
            Infix::And => {
                let right = self.expression(binds + 1)?;
                let list = match left.kind {
                    Kind::All(mut list) => {
                        list.push(right);
                        list
                    }
                    _ => vec![left, right],
                };
                self.node(Kind::All(list), at)
            }
            Infix::Coalesce => {
                let right = self.expression(binds + 1)?;
                self.node(Kind::Coalesce(Box::new(left), Box::new(right)), at)
            }
            Infix::Matches => {
                let right = self.expression(binds + 1)?;
                let pattern = match &right.kind {
                    Kind::Constant(Value::Text(text)) => Pattern::Constant(
                        go_regex(text)
                            .map_err(|error| CompileError { detail: error.to_string(), position: right.at })?,
                    ),
                    _ => Pattern::Computed(Box::new(right)),
                };
                self.node(Kind::Matches { left: Box::new(left), pattern }, at)
            }
            Infix::Plain(operator) if operator.is_comparison() => self.comparison(left, operator, binds, at),
            Infix::Plain(operator) => {
                let right = self.expression(if operator == Operator::Power { binds } else { binds + 1 })?;
                self.node(Kind::Binary { operator, left: Box::new(left), right: Box::new(right) }, at)
            }
        }
    }

    /// `a < b`, and `a < b < c`, which means `a < b and b < c`.
    fn comparison(&mut self, left: Ast, operator: Operator, binds: u16, at: usize) -> Parsed {
        let (mut left, mut operator, mut list) = (left, operator, Vec::new());
        loop {
            let right = self.expression(binds + 1)?;
            let following = match infix(self.token()) {
                Some((Infix::Plain(next), _)) if next.is_comparison() => Some(next),
                _ => None,
            };
            let operands = (Box::new(left), Box::new(right.clone()));
            list.push(self.node(Kind::Binary { operator, left: operands.0, right: operands.1 }, at)?);
            match following {
                Some(next) => {
                    self.at += 1;
                    (left, operator) = (right, next);
                }
                None if list.len() == 1 => return Ok(list.remove(0)),
                None => return self.node(Kind::All(list), at),
            }
        }
    }

    fn pipe(&mut self, left: Ast, at: usize) -> Parsed {
        let Token::Name(name) = self.advance() else {
            self.at -= 1;
            return Err(self.error("expected a function after |"));
        };
        self.expect("(")?;
        let call = self.call(name, Some(left), at)?;
        self.postfix(call)
    }

    fn ternary(&mut self, condition: Ast) -> Parsed {
        let at = self.position();
        if self.skip("?:") {
            let otherwise = self.expression(0)?;
            let (first, second) = (Box::new(condition.clone()), Box::new(condition));
            return self.node(Kind::Conditional(first, second, Box::new(otherwise)), at);
        }
        if !self.skip("?") {
            return Ok(condition);
        }
        let then = self.expression(0)?;
        self.expect(":")?;
        let otherwise = self.expression(0)?;
        self.node(Kind::Conditional(Box::new(condition), Box::new(then), Box::new(otherwise)), at)
    }

    fn variable(&mut self) -> Parsed {
        let at = self.position();
        self.at += 1;
        let Token::Name(name) = self.advance() else {
            self.at -= 1;
            return Err(self.error("expected a name after let"));
        };
        if KEYWORDS.contains(&name.as_str()) || self.scope.variable_type(&name).is_some() {
            return Err(self.error(format!("{name} cannot be declared again")));
        }
        self.expect("=")?;
        let value = Box::new(self.expression(0)?);
        self.expect(";")?;
        let body = Box::new(self.sequence()?);
        self.node(Kind::Let { name, value, body }, at)
    }

    fn branches(&mut self) -> Parsed {
        let at = self.position();
        self.at += 1;
        let condition = self.expression(0)?;
        self.expect("{")?;
        let then = self.sequence()?;
        self.expect("}")?;
        if !self.is_word("else") {
            return Err(self.error("expected else"));
        }
        self.at += 1;
        let otherwise = if self.is_word("if") {
            self.expression(0)?
        } else {
            self.expect("{")?;
            let otherwise = self.sequence()?;
            self.expect("}")?;
            otherwise
        };
        self.node(Kind::Conditional(Box::new(condition), Box::new(then), Box::new(otherwise)), at)
    }

    fn prefix(&mut self) -> Parsed {
        let at = self.position();
        let (make, binds): (fn(Box<Ast>) -> Kind, u16) = if self.is("!") || self.is_word("not") {
            (Kind::Not, 50)
        } else if self.is("-") {
            (Kind::Minus, 90)
        } else if self.is("+") {
            (Kind::Plus, 90)
        } else {
            return self.primary();
        };
        self.at += 1;
        let operand = self.expression(binds)?;
        let node = self.node(make(Box::new(operand)), at)?;
        self.postfix(node)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.position();
        let kind = match self.advance() {
            Token::Int(number) => Kind::Constant(Value::Int(number)),
            Token::Float(number) => Kind::Constant(Value::Float(number)),
            Token::Text(text) => Kind::Constant(Value::text(text)),
            Token::Pointer(name) if self.closures > 0 => match name.as_str() {
                "" => Kind::Item,
                "index" => Kind::ItemIndex,
                "acc" => Kind::Accumulator,
                _ => return Err(self.error(format!("unknown pointer #{name}"))),
            },
            Token::Symbol(".") if self.closures > 0 => {
                self.at -= 1;
                Kind::Item
            }
            Token::Symbol("(") => {
                let inner = self.sequence()?;
                self.expect(")")?;
                // Parentheses end chains and comparisons, so that what is inside is one operand.
                return self.postfix(inner);
            }
            Token::Symbol("[") => Kind::List(self.arguments("]")?),
            Token::Symbol("{") => self.map()?,
            Token::Name(name) => return self.named(name, at),
            token => {
                self.at -= 1;
                return Err(self.unexpected(&token));
            }
        };
        let node = self.node(kind, at)?;
        self.postfix(node)
    }

    fn named(&mut self, name: String, at: usize) -> Parsed {
        let kind = match name.as_str() {
            "true" => Kind::Constant(Value::Bool(true)),
            "false" => Kind::Constant(Value::Bool(false)),
            "nil" => Kind::Constant(Value::Nil),
            _ if KEYWORDS.contains(&name.as_str()) => {
                self.at -= 1;
                return Err(self.unexpected(&Token::Name(name)));
            }
            _ if self.skip("(") => {
                let call = self.call(name, None, at)?;
                return self.postfix(call);
            }
            _ => Kind::Variable(name),
        };
        let node = self.node(kind, at)?;
        self.postfix(node)
    }

    /// Arguments up to and with the closing bracket; a comma may stand before it.
    fn arguments(&mut self, closing: &str) -> Result<Vec<Ast>, CompileError> {
        let mut list = Vec::new();
        while !self.skip(closing) {
            list.push(self.expression(0)?);
            if !self.skip(",") {
                self.expect(closing)?;
                break;
            }
        }
        Ok(list)
    }

    fn map(&mut self) -> Result<Kind, CompileError> {
        let mut entries = Vec::new();
        while !self.skip("}") {
            let at = self.position();
            let key = match self.advance() {
                Token::Name(text) | Token::Text(text) => self.node(Kind::Constant(Value::text(text)), at)?,
                Token::Int(number) => self.node(Kind::Constant(Value::text(number.to_string())), at)?,
                Token::Symbol("(") => {
                    let key = self.expression(0)?;
                    self.expect(")")?;
                    key
                }
                token => {
                    self.at -= 1;
                    return Err(self.unexpected(&token));
                }
            };
            self.expect(":")?;
            entries.push((key, self.expression(0)?));
            if !self.skip(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Kind::Map(entries))
    }

    /// A call whose opening bracket is behind us. `first` comes from a pipe.
    fn call(&mut self, name: String, first: Option<Ast>, at: usize) -> Parsed {
        let own = self.scope.signature(&name).is_some();
        if let Some(function) = Closure::named(&name).filter(|_| !own) {
            return self.closure(function, first, at);
        }
        let mut arguments: Vec<Ast> = first.into_iter().collect();
        arguments.extend(self.arguments(")")?);
        self.node(Kind::Call { name, arguments }, at)
    }

    fn closure(&mut self, function: Closure, first: Option<Ast>, at: usize) -> Parsed {
        let piped = first.is_some();
        let list = match first {
            Some(list) => list,
            None => self.expression(0)?,
        };
        let mut predicate = None;
        let mut extra = None;
        let more = |parser: &mut Self| parser.skip(",") && !parser.is(")");
        if (piped && !self.is(")")) || more(self) {
            predicate = Some(Box::new(self.predicate()?));
            if function.takes_extra() && more(self) {
                extra = Some(Box::new(self.expression(0)?));
            }
        }
        self.skip(",");
        self.expect(")")?;
        if predicate.is_none() && !function.predicate_is_optional() {
            return Err(self.error(format!("{}() needs a list and a predicate", function.name())));
        }
        self.node(Kind::Closure { function, list: Box::new(list), predicate, extra }, at)
    }

    fn predicate(&mut self) -> Parsed {
        self.closures += 1;
        let parsed = if self.skip("{") {
            let body = self.sequence();
            body.and_then(|body| self.expect("}").map(|()| body))
        } else {
            self.expression(0)
        };
        self.closures -= 1;
        parsed
    }

    /// Members, indices, slices and methods behind a value.
    fn postfix(&mut self, mut node: Ast) -> Parsed {
        let mut chained = false;
        loop {
            let at = self.position();
            let optional = self.is("?.");
            if optional && matches!(self.next_token(), Token::Symbol("[")) {
                self.at += 2;
                chained = true;
                node = self.index(node, true, at)?;
            } else if optional || self.is(".") {
                self.at += 1;
                chained |= optional;
                node = self.member(node, optional, at)?;
            } else if self.skip("[") {
                node = self.index(node, false, at)?;
            } else {
                return if chained { self.node(Kind::Chain(Box::new(node)), at) } else { Ok(node) };
            }
        }
    }

    fn member(&mut self, base: Ast, optional: bool, at: usize) -> Parsed {
        let Token::Name(name) = self.advance() else {
            self.at -= 1;
            return Err(self.error("expected a name after ."));
        };
        let base = Box::new(base);
        let kind = if self.skip("(") {
            Kind::Method { base, name, arguments: self.arguments(")")?, optional }
        } else {
            Kind::Member { base, name, optional }
        };
        self.node(kind, at)
    }

    /// `[index]`, `[from:to]`; the opening bracket is behind us.
    fn index(&mut self, base: Ast, optional: bool, at: usize) -> Parsed {
        let base = Box::new(base);
        let from = if self.is(":") { None } else { Some(Box::new(self.expression(0)?)) };
        let kind = match from {
            Some(index) if !self.is(":") => Kind::Index { base, index, optional },
            from => {
                self.expect(":")?;
                let to = if self.is("]") { None } else { Some(Box::new(self.expression(0)?)) };
                Kind::Slice { base, from, to }
            }
        };
        self.expect("]")?;
        self.node(kind, at)
    }
}
