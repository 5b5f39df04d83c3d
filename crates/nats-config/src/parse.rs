//! From text to tree: grammar, variables, included files (spec 07 §23).
//!
//! A text is read in one pass. What a variable or an included file adds is bounded, so that no text can ask for more
//! than its reader is willing to give.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bare::{self, Rejected};
use crate::cursor::{Cursor, is_blank, is_line_end};
use crate::source::Sources;
use crate::value::{Kind, Pair, Value};
use crate::{Files, Position, Problem};

/// Blocks and lists within each other.
const MAX_DEPTH: usize = 64;
const TOO_DEEP: &str = "there are more than 64 blocks and lists within each other";
/// Files that include each other.
const MAX_INCLUDE_DEPTH: usize = 32;
/// Files over all.
const MAX_FILES: usize = 1000;
/// Bytes of one text, and of all texts together.
const MAX_BYTES: usize = 64 << 20;
/// Values over all, each counted as often as a variable repeats it.
const MAX_VALUES: usize = 4_000_000;

/// The syntax that is wrong; there is only one, because nobody can tell where the next thing begins.
pub(crate) type Parsed<T> = Result<T, Box<Problem>>;

/// Reads a text and everything it includes.
pub(crate) fn parse(path: &Path, text: String, files: &dyn Files, sources: &mut Sources) -> Parsed<Vec<Pair>> {
    let mut parser = Parser {
        files,
        sources,
        scopes: vec![Scope::default()],
        including: Vec::new(),
        read: 0,
        values: 0,
        depth: 0,
        in_variable: false,
    };
    parser.document(path.into(), text)?;
    Ok(parser.scopes.pop().unwrap_or_default().pairs)
}

/// A block that is being read: its pairs so far, and the last one of each name.
#[derive(Default)]
struct Scope {
    pairs: Vec<Pair>,
    last: HashMap<Arc<str>, usize>,
}

struct Parser<'a> {
    files: &'a dyn Files,
    sources: &'a mut Sources,
    /// From the outermost block of this file to the innermost.
    scopes: Vec<Scope>,
    including: Vec<PathBuf>,
    read: usize,
    values: usize,
    depth: usize,
    in_variable: bool,
}

/// What ends a list of pairs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The end of the text.
    Text,
    /// A closing brace.
    Brace,
}

impl Parser<'_> {
    fn problem(&self, at: Position, message: impl Into<String>, hint: Option<&str>) -> Box<Problem> {
        Box::new(self.sources.problem(at, message.into(), hint.map(str::to_owned)))
    }

    fn fail<T>(&self, at: Position, message: impl Into<String>, hint: Option<&str>) -> Parsed<T> {
        Err(self.problem(at, message, hint))
    }

    /// Reads one file into the innermost scope.
    fn document(&mut self, file: Arc<Path>, text: String) -> Parsed<()> {
        let text: Arc<str> = text.into();
        self.read = self.read.saturating_add(text.len());
        self.sources.add(Arc::clone(&file), Arc::clone(&text));
        let mut cursor = Cursor::new(&text, file);
        if self.read > MAX_BYTES {
            return self.fail(cursor.position(), "the configuration is too large", None);
        }
        if text.contains('\0') {
            cursor.take_while(|c| c != '\0');
            return self.fail(cursor.position(), "this is not text", None);
        }
        cursor.skip_space();
        let whole = cursor.position();
        if !cursor.take('{') {
            return self.pairs(&mut cursor, End::Text);
        }
        self.pairs(&mut cursor, End::Brace)?;
        cursor.skip_space();
        if cursor.peek().is_some() {
            let hint = format!("the block that begins in line {} is the whole configuration", whole.line);
            return self.fail(cursor.position(), "nothing may follow here", Some(&hint));
        }
        Ok(())
    }

    fn pairs(&mut self, cursor: &mut Cursor<'_>, end: End) -> Parsed<()> {
        let opened = cursor.position();
        loop {
            cursor.skip_space();
            match cursor.peek() {
                None if end == End::Text => return Ok(()),
                None => {
                    let hint = format!("the block that begins in line {} has no `}}`", opened.line);
                    return self.fail(cursor.position(), "the text ends within a block", Some(&hint));
                }
                Some('}') if end == End::Brace => {
                    cursor.next();
                    return Ok(());
                }
                Some('}') => return self.fail(cursor.position(), "no block is open that this `}` could close", None),
                Some(_) => self.pair(cursor)?,
            }
            self.pair_end(cursor, end)?;
        }
    }

    /// What must follow a pair: a comma, a semicolon, the end of the line or of the block.
    fn pair_end(&self, cursor: &mut Cursor<'_>, end: End) -> Parsed<()> {
        cursor.skip_blanks();
        if cursor.take(',') || cursor.take(';') || cursor.at_comment() {
            return Ok(());
        }
        match cursor.peek() {
            None => Ok(()),
            Some(c) if is_line_end(c) => Ok(()),
            Some('}') if end == End::Brace => Ok(()),
            Some('}') => self.fail(cursor.position(), "no block is open that this `}` could close", None),
            Some(_) => self.fail(
                cursor.position(),
                "a setting must end before the next one begins",
                Some("put settings on lines of their own or a `,` between them, and texts with blanks in quotes"),
            ),
        }
    }

    fn pair(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        let at = cursor.position();
        let quoted = matches!(cursor.peek(), Some('"' | '\''));
        let key: Arc<str> = match cursor.peek() {
            Some('"') => self.double_quoted(cursor)?.into(),
            Some('\'') => self.single_quoted(cursor)?.into(),
            _ => cursor.take_while(|c| !c.is_whitespace() && c != ':' && c != '=').into(),
        };
        if !quoted {
            self.check_key(&key, &at)?;
            if key.eq_ignore_ascii_case("include") && cursor.peek().is_some_and(is_blank) {
                cursor.skip_blanks();
                if !matches!(cursor.peek(), Some(':' | '=')) {
                    return self.include(cursor);
                }
            }
        }
        self.separator(cursor, &key)?;
        let value = self.value(cursor)?;
        self.define(Pair { key, at, value, used: false });
        Ok(())
    }

    fn check_key(&self, key: &str, at: &Position) -> Parsed<()> {
        if key.is_empty() {
            return self.fail(at.clone(), "the name of a setting is expected", None);
        }
        if let Some(wrong) = key.find(['{', '}', '[', ']', ',', ';', '(', ')', '"']) {
            let mut at = at.clone();
            at.column = at.column.saturating_add(u32::try_from(key[..wrong].chars().count()).unwrap_or(u32::MAX));
            let hint = if key[wrong..].starts_with('{') { "put a blank before `{`" } else { "put the name in quotes" };
            return self.fail(at, "this cannot be part of a name", Some(hint));
        }
        Ok(())
    }

    /// Between name and value: a colon, an equals sign, or blanks. A block or list may begin on the next line, and within
    /// blocks so may everything that follows a separator.
    fn separator(&self, cursor: &mut Cursor<'_>, key: &str) -> Parsed<()> {
        cursor.skip_blanks();
        let here = cursor.position();
        let line_end = cursor.skip_space();
        if cursor.take(':') || cursor.take('=') {
            cursor.skip_blanks();
            if self.scopes.len() > 1 && cursor.peek().is_some_and(is_line_end) {
                cursor.skip_space();
            }
        } else if line_end && !matches!(cursor.peek(), Some('{' | '[')) {
            return self.missing_value(here, key);
        }
        match cursor.peek() {
            None | Some('\n' | '\r' | '}') => self.missing_value(cursor.position(), key),
            Some(_) if cursor.at_comment() => self.missing_value(cursor.position(), key),
            Some(_) => Ok(()),
        }
    }

    fn missing_value<T>(&self, at: Position, key: &str) -> Parsed<T> {
        let hint = "the value stands on the line of its name; a text that begins with `#` or `//` needs quotes";
        self.fail(at, format!("{} has no value", shown(key)), Some(hint))
    }

    fn define(&mut self, pair: Pair) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.last.insert(Arc::clone(&pair.key), scope.pairs.len());
            scope.pairs.push(pair);
        }
    }

    fn value(&mut self, cursor: &mut Cursor<'_>) -> Parsed<Value> {
        let at = cursor.position();
        let value = match cursor.peek() {
            Some('{') => self.nested(cursor, Self::block)?,
            Some('[') => self.nested(cursor, Self::list)?,
            Some('(') => Value::plain(at, Kind::Text(self.raw_block(cursor)?.into())),
            Some('"') => Value::plain(at, Kind::Text(self.double_quoted(cursor)?.into())),
            Some('\'') => Value::plain(at, Kind::Text(self.single_quoted(cursor)?.into())),
            _ => self.word(cursor)?,
        };
        // Blocks and lists are counted by what is in them; only a variable can bring more than one.
        self.values = self.values.saturating_add(1);
        if value.depth > MAX_DEPTH {
            return self.fail(value.at, TOO_DEEP, None);
        }
        if self.values > MAX_VALUES || value.size > MAX_VALUES {
            return self.fail(value.at, "the configuration is too large", None);
        }
        Ok(value)
    }

    fn nested(
        &mut self,
        cursor: &mut Cursor<'_>,
        read: fn(&mut Self, &mut Cursor<'_>, Position) -> Parsed<Value>,
    ) -> Parsed<Value> {
        let at = cursor.position();
        if self.depth == MAX_DEPTH {
            return self.fail(at, TOO_DEEP, None);
        }
        self.depth += 1;
        cursor.next();
        let value = read(self, cursor, at);
        self.depth -= 1;
        value
    }

    fn block(&mut self, cursor: &mut Cursor<'_>, at: Position) -> Parsed<Value> {
        self.scopes.push(Scope::default());
        let read = self.pairs(cursor, End::Brace);
        let scope = self.scopes.pop().unwrap_or_default();
        read?;
        Ok(Value::map(at, scope.pairs))
    }

    fn list(&mut self, cursor: &mut Cursor<'_>, at: Position) -> Parsed<Value> {
        let mut values = Vec::new();
        cursor.skip_space();
        while !cursor.take(']') {
            match cursor.peek() {
                None => return self.unclosed_list(cursor, &at),
                Some(',' | ';') => return self.fail(cursor.position(), "an entry of the list is missing here", None),
                Some(_) => values.push(self.value(cursor)?),
            }
            let line_end = cursor.skip_space();
            match cursor.peek() {
                // Behind a line end a comma would stand for a missing entry.
                Some(',') if !line_end => {
                    cursor.next();
                    cursor.skip_space();
                }
                None => return self.unclosed_list(cursor, &at),
                Some(']') => {}
                Some(_) if line_end => {}
                Some(_) => {
                    let hint =
                        "put entries on lines of their own or a `,` between them, and texts with blanks in quotes";
                    return self.fail(cursor.position(), "an entry must end before the next one begins", Some(hint));
                }
            }
        }
        Ok(Value::list(at, values))
    }

    fn unclosed_list<T>(&self, cursor: &Cursor<'_>, at: &Position) -> Parsed<T> {
        let hint = format!("the list that begins in line {} has no `]`", at.line);
        self.fail(cursor.position(), "the text ends within a list", Some(&hint))
    }

    /// `( … )`: everything up to a line that begins with `)`, as it stands.
    fn raw_block(&self, cursor: &mut Cursor<'_>) -> Parsed<String> {
        let at = cursor.position();
        cursor.next();
        let mut text = String::new();
        while let Some(c) = cursor.next() {
            text.push(c);
            let ends = c == '\n'
                && cursor.rest().strip_prefix(')').is_some_and(|rest| {
                    rest.trim_start_matches(is_blank).is_empty()
                        || rest.trim_start_matches(is_blank).starts_with(['\n', '\r'])
                });
            if ends {
                cursor.next();
                return Ok(text);
            }
        }
        self.fail(at, "the text that begins here has no end", Some("it ends with a line that holds only `)`"))
    }

    fn single_quoted(&self, cursor: &mut Cursor<'_>) -> Parsed<String> {
        let at = cursor.position();
        cursor.next();
        let text = cursor.take_while(|c| c != '\'').to_owned();
        if cursor.take('\'') { Ok(text) } else { self.unclosed_quote(at) }
    }

    fn unclosed_quote<T>(&self, at: Position) -> Parsed<T> {
        self.fail(at, "the quote that begins here has no end", None)
    }

    fn double_quoted(&self, cursor: &mut Cursor<'_>) -> Parsed<String> {
        let at = cursor.position();
        cursor.next();
        let mut bytes = Vec::new();
        loop {
            match cursor.peek() {
                None => return self.unclosed_quote(at),
                Some('"') => break,
                Some(_) => self.character(cursor, &mut bytes).map_err(|problem| inside(problem, &at))?,
            }
        }
        cursor.next();
        self.utf8(bytes, at)
    }

    /// One character or escape.
    fn character(&self, cursor: &mut Cursor<'_>, bytes: &mut Vec<u8>) -> Parsed<()> {
        let at = cursor.position();
        match cursor.next() {
            Some('\\') => bytes.push(self.escape(cursor, at)?),
            Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => {}
        }
        Ok(())
    }

    fn escape(&self, cursor: &mut Cursor<'_>, at: Position) -> Parsed<u8> {
        match cursor.next() {
            Some('t') => Ok(b'\t'),
            Some('n') => Ok(b'\n'),
            Some('r') => Ok(b'\r'),
            Some('"') => Ok(b'"'),
            Some('\\') => Ok(b'\\'),
            Some('x') => {
                let mut digit =
                    || cursor.next().and_then(|c| c.to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
                match (digit(), digit()) {
                    (Some(high), Some(low)) => Ok(high << 4 | low),
                    _ => self.fail(at, "two hexadecimal digits are expected after `\\x`", None),
                }
            }
            _ => self.fail(
                at,
                "no such escape",
                Some("there are \\t, \\n, \\r, \\\", \\\\ and \\xXX; a text in single quotes has no escapes"),
            ),
        }
    }

    fn utf8(&self, bytes: Vec<u8>, at: Position) -> Parsed<String> {
        String::from_utf8(bytes).or_else(|_| self.fail(at, "the text is not UTF-8", None))
    }

    /// A word without quotes: a variable, a number, a truth value or a text.
    fn word(&mut self, cursor: &mut Cursor<'_>) -> Parsed<Value> {
        let at = cursor.position();
        let mut bytes = Vec::new();
        let mut escaped = false;
        while let Some(c) = cursor.peek() {
            if c.is_whitespace() || matches!(c, ',' | ';' | ']' | '}' | '\'') {
                break;
            }
            escaped |= c == '\\';
            self.character(cursor, &mut bytes)?;
        }
        let word = self.utf8(bytes, at.clone())?;
        if word.is_empty() {
            return self.fail(at, "a value is expected", None);
        }
        // Bcrypt hashes begin so.
        let hash = word.starts_with("$2a$") || word.starts_with("$2b$") || word.starts_with("$2y$");
        if let Some(name) = word.strip_prefix('$').filter(|_| !hash && !escaped) {
            return self.variable(name, at);
        }
        if escaped {
            return Ok(Value::plain(at, Kind::Text(word.into())));
        }
        match bare::classify(&word) {
            Ok(kind) => Ok(Value::plain(at, kind)),
            Err(Rejected { message, hint }) => self.fail(at, message, hint.as_deref()),
        }
    }

    fn variable(&mut self, name: &str, at: Position) -> Parsed<Value> {
        for scope in self.scopes.iter_mut().rev() {
            if let Some(pair) = scope.last.get(name).and_then(|last| scope.pairs.get_mut(*last)) {
                pair.used = true;
                return Ok(Value { at, ..pair.value.clone() });
            }
        }
        if let Some(text) = self.files.environment(name) {
            return self.environment_value(name, &text, at);
        }
        let hint = "define it above as `NAME: value` or in the environment; put a text that begins with `$` in quotes";
        self.fail(at, format!("the variable {} is not defined", shown(name)), Some(hint))
    }

    /// The text of a variable of the environment is read as a value.
    fn environment_value(&mut self, name: &str, text: &str, at: Position) -> Parsed<Value> {
        let refuse = |parser: &Self| {
            let message = format!("the variable {} of the environment does not hold one value", shown(name));
            parser.problem(at.clone(), message, Some("a text with blanks needs quotes inside the variable"))
        };
        // Variables that name each other would go on for ever.
        self.read = self.read.saturating_add(text.len());
        if self.in_variable && text.trim_start().starts_with('$') || self.read > MAX_BYTES {
            return Err(refuse(self));
        }
        let mut cursor = Cursor::fixed(text, at.clone());
        cursor.skip_blanks();
        if cursor.peek().is_none() {
            return Ok(Value::plain(at, Kind::Text("".into())));
        }
        let (inside, scopes) = (self.in_variable, std::mem::take(&mut self.scopes));
        self.in_variable = true;
        let value = self.value(&mut cursor);
        (self.in_variable, self.scopes) = (inside, scopes);
        cursor.skip_space();
        let mut value = value.map_err(|_| refuse(self))?;
        if cursor.peek().is_some() {
            return Err(refuse(self));
        }
        value.at = at;
        Ok(value)
    }

    fn include(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        let named = cursor.position();
        let name = match cursor.peek() {
            Some('"') => self.double_quoted(cursor)?,
            Some('\'') => self.single_quoted(cursor)?,
            _ => cursor.take_while(|c| !c.is_whitespace() && !matches!(c, ',' | ';' | '}')).to_owned(),
        };
        if name.is_empty() {
            return self.fail(named, "the name of a file is expected after `include`", None);
        }
        let path = cursor.file().parent().unwrap_or_else(|| Path::new("")).join(&name);
        let path: PathBuf = path.components().filter(|part| *part != std::path::Component::CurDir).collect();
        let looping = path == cursor.file() || self.including.contains(&path);
        if looping || self.including.len() >= MAX_INCLUDE_DEPTH {
            return self.fail(named, format!("{} includes itself", shown(&path.to_string_lossy())), None);
        }
        if self.sources.len() >= MAX_FILES {
            return self.fail(named, format!("more than {MAX_FILES} files are included"), None);
        }
        let text = match self.files.read(&path) {
            Ok(text) => text,
            Err(reason) => {
                return self.fail(named, format!("the file cannot be included: {}", one_line(&reason, 300)), None);
            }
        };
        // What it says becomes part of this block, but it sees nothing of it.
        let outer = std::mem::replace(&mut self.scopes, vec![Scope::default()]);
        self.including.push(cursor.file().to_owned());
        let read = self.document(path.into(), text);
        self.including.pop();
        let included = std::mem::replace(&mut self.scopes, outer).pop().unwrap_or_default();
        read?;
        included.pairs.into_iter().for_each(|pair| self.define(pair));
        Ok(())
    }
}

/// A problem inside a text: a further line of it is not shown, because it may be part of a secret.
fn inside(mut problem: Box<Problem>, start: &Position) -> Box<Problem> {
    if problem.at.line != start.line {
        problem.line = None;
    }
    problem
}

/// A name fit for a message.
pub(crate) fn shown(name: &str) -> String {
    one_line(name, 60)
}

/// A text fit for one line of a message: control characters escaped, cut when long.
fn one_line(text: &str, longest: usize) -> String {
    let mut line: String = text.chars().take(longest).flat_map(char::escape_debug).collect();
    if text.chars().nth(longest).is_some() {
        line.push('…');
    }
    line
}
