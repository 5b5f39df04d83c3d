//! Text to tokens.

use super::CompileError;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Float(f64),
    Text(String),
    /// Names and the operators that are words.
    Name(String),
    /// Operators and brackets.
    Symbol(&'static str),
    /// `#`, `#index`, `#acc`.
    Pointer(String),
    End,
}

/// A token and the character it begins at, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) at: usize,
}

/// Longest first.
const SYMBOLS: [&str; 33] = [
    "**", "==", "!=", "<=", ">=", "&&", "||", "??", "?.", "?:", "..", "+", "-", "*", "/", "%", "^", "<", ">", "!", "?",
    ":", ".", ",", "|", ";", "(", ")", "[", "]", "{", "}", "=",
];

/// Takes an expression apart.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, CompileError> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let at = lexer.at + 1;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push(Placed { token, at });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn error(&self, detail: impl Into<String>) -> CompileError {
        CompileError { detail: detail.into(), position: self.at + 1 }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&keep) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn skip_blanks(&mut self) -> Result<(), CompileError> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(c), _) if c.is_whitespace() => self.at += 1,
                (Some('/'), Some('/')) => {
                    self.take_while(|c| c != '\n');
                }
                (Some('/'), Some('*')) => {
                    let open = self.error("comment is not closed");
                    self.at += 2;
                    while !(self.peek(0) == Some('*') && self.peek(1) == Some('/')) {
                        if self.peek(0).is_none() {
                            return Err(open);
                        }
                        self.at += 1;
                    }
                    self.at += 2;
                }
                _ => return Ok(()),
            }
        }
    }

    fn token(&mut self) -> Result<Token, CompileError> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        match first {
            '0'..='9' => self.number(),
            '.' if self.peek(1).is_some_and(|c| c.is_ascii_digit()) => self.number(),
            '"' | '\'' => self.quoted(first),
            '`' => self.raw(),
            '#' => {
                self.at += 1;
                Ok(Token::Pointer(self.take_while(is_name)))
            }
            c if c == '_' || c == '$' || c.is_alphabetic() => {
                self.at += 1;
                let rest = self.take_while(is_name);
                Ok(Token::Name(format!("{c}{rest}")))
            }
            _ => {
                for symbol in SYMBOLS {
                    if symbol.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == Some(c)) {
                        self.at += symbol.len();
                        return Ok(Token::Symbol(symbol));
                    }
                }
                Err(self.error(format!("unexpected character {first:?}")))
            }
        }
    }

    fn number(&mut self) -> Result<Token, CompileError> {
        let start = self.error("");
        let refuse = |text: &str| CompileError { detail: format!("{text} is not a number"), ..start.clone() };
        if let (Some('0'), Some(kind)) = (self.peek(0), self.peek(1)) {
            let radix = match kind.to_ascii_lowercase() {
                'x' => 16,
                'o' => 8,
                'b' => 2,
                _ => 0,
            };
            if radix != 0 {
                self.at += 2;
                let text = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').replace('_', "");
                return i64::from_str_radix(&text, radix).map(Token::Int).map_err(|_| refuse(&text));
            }
        }
        let digits = |c: char| c.is_ascii_digit() || c == '_';
        let mut text = self.take_while(digits);
        let mut whole = true;
        if self.peek(0) == Some('.') && self.peek(1) != Some('.') && !self.peek(1).is_some_and(char::is_alphabetic) {
            whole = false;
            self.at += 1;
            text.push('.');
            text.push_str(&self.take_while(digits));
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            whole = false;
            self.at += 1;
            text.push('e');
            if let Some(sign @ ('+' | '-')) = self.peek(0) {
                self.at += 1;
                text.push(sign);
            }
            text.push_str(&self.take_while(digits));
        }
        if self.peek(0).is_some_and(is_name) {
            return Err(self.error("a number is followed by letters"));
        }
        let text = text.replace('_', "");
        if whole {
            text.parse().map(Token::Int).map_err(|_| refuse(&text))
        } else {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number.map(Token::Float).ok_or_else(|| refuse(&text))
        }
    }

    fn raw(&mut self) -> Result<Token, CompileError> {
        let open = self.error("text is not closed");
        self.at += 1;
        let text = self.take_while(|c| c != '`');
        if self.peek(0).is_none() {
            return Err(open);
        }
        self.at += 1;
        Ok(Token::Text(text))
    }

    fn quoted(&mut self, quote: char) -> Result<Token, CompileError> {
        let open = self.error("text is not closed");
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek(0) {
                None | Some('\n') => return Err(open),
                Some(c) if c == quote => {
                    self.at += 1;
                    return Ok(Token::Text(text));
                }
                Some('\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                Some(c) => {
                    self.at += 1;
                    text.push(c);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, CompileError> {
        let Some(c) = self.peek(0) else { return Err(self.error("text is not closed")) };
        self.at += 1;
        let (digits, radix) = match c {
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\u{b}'),
            '\\' | '\'' | '"' | '`' | '?' | '/' => return Ok(c),
            'x' | 'X' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='3' => {
                self.at -= 1;
                (3, 8)
            }
            _ => return Err(self.error(format!("unknown escape \\{c}"))),
        };
        let text: String = self.chars[self.at.min(self.chars.len())..].iter().take(digits).collect();
        self.at += text.chars().count();
        let code = if text.len() == digits { u32::from_str_radix(&text, radix).ok() } else { None };
        code.and_then(char::from_u32).ok_or_else(|| self.error("escape is not a character"))
    }
}

fn is_name(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphanumeric()
}
