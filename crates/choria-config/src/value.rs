//! Values as the loader holds them, and the conversion to and from Rust types.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::{AuthorizationProvider, DiscoveryMethod, LimitMethod, LogLevel, LogTarget, SecurityProvider};

/// A checked value of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, also a path and one word of a closed set.
    Text(String),
    /// Whole number.
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
    /// Time span.
    Duration(Duration),
    /// List of texts or paths.
    List(Vec<String>),
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that a [`Key`](crate::Key) can carry. Sealed: the set of kinds is closed.
///
/// The key table guarantees that the kind of a key fits its type (a test walks the whole table), so a mismatch shows
/// as `None` here and never reaches a caller.
pub trait Setting: sealed::Sealed + Sized {
    /// Reads the value; `None` stands for an option that is not set.
    fn read(value: Option<&Value>) -> Option<Self>;
    /// Turns the typed value into what the loader stores; `None` clears it.
    fn write(self) -> Option<Value>;
}

macro_rules! setting {
    ($type:ty, $pattern:pat => $read:expr, $value:ident => $write:expr) => {
        impl sealed::Sealed for $type {}
        impl Setting for $type {
            fn read(value: Option<&Value>) -> Option<Self> {
                match value? {
                    $pattern => $read,
                    _ => None,
                }
            }
            fn write(self) -> Option<Value> {
                let $value = self;
                Some($write)
            }
        }
    };
}

setting!(String, Value::Text(text) => Some(text.clone()), text => Value::Text(text));
setting!(PathBuf, Value::Text(text) => Some(Self::from(text)), path => Value::Text(path.to_string_lossy().into_owned()));
setting!(LogTarget, Value::Text(text) => Some(Self::from_text(text)), target => Value::Text(target.to_string()));
setting!(LogLevel, Value::Text(text) => Self::from_word(text), word => Value::Text(word.to_string()));
setting!(SecurityProvider, Value::Text(text) => Self::from_word(text), word => Value::Text(word.to_string()));
setting!(LimitMethod, Value::Text(text) => Self::from_word(text), word => Value::Text(word.to_string()));
setting!(DiscoveryMethod, Value::Text(text) => Self::from_word(text), word => Value::Text(word.to_string()));
setting!(AuthorizationProvider, Value::Text(text) => Self::from_word(text), word => Value::Text(word.to_string()));
setting!(bool, Value::Boolean(flag) => Some(*flag), flag => Value::Boolean(flag));
setting!(i64, Value::Integer(number) => Some(*number), number => Value::Integer(number));
setting!(u16, Value::Integer(number) => Self::try_from(*number).ok(), number => Value::Integer(i64::from(number)));
setting!(u32, Value::Integer(number) => Self::try_from(*number).ok(), number => Value::Integer(i64::from(number)));
setting!(Duration, Value::Duration(duration) => Some(*duration), duration => Value::Duration(duration));
setting!(Vec<String>, Value::List(list) => Some(list.clone()), list => Value::List(list));
setting!(Vec<PathBuf>, Value::List(list) => Some(list.iter().map(PathBuf::from).collect()),
    list => Value::List(list.iter().map(|path| path.to_string_lossy().into_owned()).collect()));

impl<T: Setting> sealed::Sealed for Option<T> {}
impl<T: Setting> Setting for Option<T> {
    fn read(value: Option<&Value>) -> Option<Self> {
        match value {
            None => Some(None),
            Some(value) => T::read(Some(value)).map(Some),
        }
    }
    fn write(self) -> Option<Value> {
        self.and_then(T::write)
    }
}
