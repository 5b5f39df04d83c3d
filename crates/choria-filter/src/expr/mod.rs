//! The expression language of compound filters and `--filter-replies` (spec 01 §7.3, spec 05 §3.5, §6.6): the language
//! expr-lang 1.17 as the original uses it.
//!
//! Written here rather than taken from a library because expressions come from other machines. Every step of an evaluation and
//! every value made is paid from a budget, so `map(1..1000000, ...)` ends with an error after a moment instead of taking the
//! memory of the process; texts, nesting and values have limits; nothing in here panics.
//!
//! ```text
//! text --token--> tokens --parse--> tree --check--> Program --run with a Host--> Value
//! ```
//!
//! Understood: literals, lists, maps, `+ - * / % ** ^`, comparisons (chained ones too), `in contains startsWith endsWith matches` and
//! their `not` forms, `and or not && || !`, `??`, `? :`, `?:`, `if {} else {}`, `let x = ..; ..`, ranges, member, index and slice access,
//! `?.`, pipes, the built-in functions with and without predicates, `now() date() duration()` with their methods. Not understood:
//! `timezone()`, `date()` with a layout, `$env`.
//!
//! ```
//! use choria_filter::expr::{Host, Program, Scope, Type, Value};
//!
//! struct Reply;
//! impl Host for Reply {
//!     fn variable(&self, name: &str) -> Option<Value> {
//!         (name == "code").then_some(Value::Int(3))
//!     }
//! }
//! let scope = Scope::new().variable("code", Type::Int);
//! let program = Program::compile("code > 0 and code < 5", &scope)?;
//! assert!(program.is_true(&Reply)?);
//! assert!(Program::compile("code >", &scope).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ast;
mod check;
mod closures;
mod functions;
mod lists;
mod ops;
mod parse;
mod run;
mod temporal;
mod texts;
mod token;
mod value;

pub use check::Type;
pub use run::{Budget, RunError};
pub use value::Value;

use ast::Ast;

/// Longest expression that is compiled, in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;

/// Why an expression does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail} (at character {position})")]
pub struct CompileError {
    /// What is wrong.
    pub detail: String,
    /// Where, counted from 1.
    pub position: usize,
}

/// Names an expression may use beside the built-in ones, for the checks at compile time. Other variables are nil,
/// other functions fail when they are called.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    variables: Vec<(String, Type)>,
    functions: Vec<(String, Vec<Type>, Type)>,
}

impl Scope {
    /// No names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, kind: Type) -> Self {
        self.variables.push((name.into(), kind));
        self
    }

    /// Adds a function with the types of its parameters and of its result. It hides a built-in one of that name.
    #[must_use]
    pub fn function(mut self, name: impl Into<String>, parameters: &[Type], result: Type) -> Self {
        self.functions.push((name.into(), parameters.to_vec(), result));
        self
    }

    fn variable_type(&self, name: &str) -> Option<Type> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind)
    }

    fn signature(&self, name: &str) -> Option<(&[Type], Type)> {
        self.functions.iter().find(|(known, ..)| known == name).map(|(_, parameters, result)| (&**parameters, *result))
    }
}

/// What an expression sees when it runs.
pub trait Host {
    /// The value of a variable; `None` becomes nil.
    fn variable(&self, name: &str) -> Option<Value>;

    /// Calls a function. `None` when there is none of that name.
    fn call(&self, name: &str, arguments: &[Value], budget: &Budget) -> Option<Result<Value, RunError>> {
        let _ = (name, arguments, budget);
        None
    }

    /// Unix seconds for `now()`.
    fn now(&self) -> Option<i64> {
        None
    }
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Program {
    root: Ast,
}

impl Program {
    /// Compiles an expression whose result may be anything.
    ///
    /// # Errors
    /// [`CompileError`] with the place.
    pub fn compile_any(text: &str, scope: &Scope) -> Result<Self, CompileError> {
        if text.len() > MAX_LENGTH {
            return Err(CompileError { detail: format!("expression is longer than {MAX_LENGTH} bytes"), position: 1 });
        }
        let tokens = token::tokens(text)?;
        let root = parse::Parser::new(tokens, scope).parse()?;
        check::Checker::new(scope).check(&root)?;
        Ok(Self { root })
    }

    /// Compiles an expression that must yield a boolean, as far as that can be told before it runs.
    ///
    /// # Errors
    /// [`CompileError`] with the place.
    pub fn compile(text: &str, scope: &Scope) -> Result<Self, CompileError> {
        let program = Self::compile_any(text, scope)?;
        match check::Checker::new(scope).check(&program.root)? {
            Type::Bool | Type::Any => Ok(program),
            other => {
                Err(CompileError { detail: format!("expected a boolean, but the result is {other}"), position: 1 })
            }
        }
    }

    /// Runs the expression.
    ///
    /// # Errors
    /// [`RunError`] when operands do not fit, a function fails or the budget is spent.
    pub fn run(&self, host: &dyn Host) -> Result<Value, RunError> {
        run::Runner::new(host).run(&self.root)
    }

    /// Runs the expression as a condition. Nil counts as false.
    ///
    /// # Errors
    /// As [`Self::run`], and when the result is neither a boolean nor nil.
    pub fn is_true(&self, host: &dyn Host) -> Result<bool, RunError> {
        match self.run(host)? {
            Value::Bool(truth) => Ok(truth),
            Value::Nil => Ok(false),
            other => Err(RunError::new(format!("the result is {}, not a boolean", other.type_name()))),
        }
    }
}

#[cfg(test)]
mod tests;
