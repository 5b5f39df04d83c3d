use proptest::prelude::*;

use super::*;

struct Nothing;

impl Host for Nothing {
    fn variable(&self, _: &str) -> Option<Value> {
        None
    }

    fn now(&self) -> Option<i64> {
        Some(1_795_169_188)
    }
}

fn compile(text: &str) -> Result<Program, CompileError> {
    Program::compile_any(text, &Scope::new())
}

fn outcome(text: &str) -> String {
    match compile(text) {
        Err(error) => format!("does not compile: {error}"),
        Ok(program) => match program.is_true(&Nothing) {
            Ok(truth) => truth.to_string(),
            Err(error) => format!("fails: {error}"),
        },
    }
}

fn is_true(text: &str) -> bool {
    outcome(text) == "true"
}

#[test]
fn expressions_that_are_true() {
    let mut wrong = Vec::new();
    for text in [
        "1 == 1.0",
        "'a' + 'b' == 'ab'",
        "[1,2] == [1.0,2]",
        "{'a':1}.a == 1",
        "{'a': 1 + 1}.a == 2",
        "{a: {b: 2}}.a.b == 2",
        "{\"a b\": 1}['a b'] == 1",
        "true and not false",
        "not (1 > 2)",
        "1 < 2 < 3",
        "not (1 < 3 < 2)",
        "2 ** 3 ** 2 == 512",
        "2 ^ 3 == 8",
        "-2 ** 2 == -4",
        "7 % 3 == 1",
        "1 / 2 == 0.5",
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "5 - 2 - 1 == 2",
        "0x10 == 16 and 0b11 == 3 and 0o17 == 15",
        "1_000 == 1000",
        ".5 == 0.5",
        "1e3 == 1000",
        "1..3 == [1,2,3]",
        "len(3..1) == 0",
        "'b' in ['a','b']",
        "'z' not in ['a','b']",
        "'a' in {'a': 1}",
        "1 in nil == false",
        "'abc' contains 'b'",
        "'abc' not contains 'z'",
        "'abc' startsWith 'a' and 'abc' endsWith 'c'",
        "'abc' matches '^a.c$'",
        "'abc' not matches 'z'",
        "(nil contains 'x') == false",
        "(nil ?? 1) == 1",
        "nosuch == nil",
        "nosuch?.x.y == nil",
        "(nosuch?.x ?? 2) == 2",
        "[1,2,3][0] == 1 and [1,2,3][-1] == 3",
        "[1,2,3][1:] == [2,3]",
        "[1,2,3][:1] == [1]",
        "'hello'[1:3] == 'el'",
        "[1,2][5:] == []",
        "any([1,2], # > 1)",
        "any([1,2], {# > 1})",
        "all([1,2], # > 0)",
        "none([1,2], # > 5)",
        "one([1,2], # > 1)",
        "filter([1,2,3], # > 1) == [2,3]",
        "map([1,2], # * 2) == [2,4]",
        "count([1,2,3], # > 1) == 2",
        "count([true,false]) == 1",
        "sum([1,2]) == 3",
        "sum([{a:1},{a:2}], .a) == 3",
        "find([1,2,3], # > 1) == 2",
        "findIndex([1,2,3], # > 1) == 1",
        "findLast([1,2,3], # < 3) == 2",
        "findLastIndex([1,2,3], # < 3) == 1",
        "reduce([1,2,3], #acc + #) == 6",
        "reduce([1,2,3], #acc + #, 10) == 16",
        "map([5,6], #index) == [0,1]",
        "groupBy([1,2,3], # > 1).true == [2,3]",
        "sortBy([{a:2},{a:1}], .a)[0].a == 1",
        "sortBy([1,2], #, 'desc') == [2,1]",
        "map([[1,2],[3]], len(filter(#, # > 1))) == [1,1]",
        "let x = 4; x == 4",
        "let x = 1; let y = x + 1; y == 2",
        "if 1 > 2 { false } else { true }",
        "if false {false} else if true {true} else {false}",
        "true ? true : false",
        "true ?: false",
        "false || true && true",
        "!false",
        "not not true",
        "len('é') == 1",
        "upper('a') == 'A'",
        "lower('A') == 'a'",
        "trim(' x ') == 'x'",
        "trim('_x_', '_') == 'x'",
        "trimPrefix('ab','a') == 'b'",
        "trimSuffix('ab','b') == 'a'",
        "split('a,b',',')[1] == 'b'",
        "split('a,b,c',',',2) == ['a','b,c']",
        "splitAfter('a,b',',') == ['a,','b']",
        "replace('aa','a','b') == 'bb'",
        "replace('aa','a','b',1) == 'ba'",
        "repeat('ab',2) == 'abab'",
        "join(['a','b'],'-') == 'a-b'",
        "indexOf('abc','c') == 2",
        "lastIndexOf('aba','a') == 2",
        "hasPrefix('ab','a')",
        "hasSuffix('ab','b')",
        "max(1,2) == 2",
        "min([3,1.5]) == 1.5",
        "mean([1,2]) == 1.5",
        "median([1,2,9]) == 2",
        "abs(-1) == 1",
        "ceil(1.2) == 2",
        "floor(1.8) == 1",
        "round(1.5) == 2",
        "int('5') == 5 and int(5.9) == 5",
        "float('1.5') == 1.5",
        "string(4.0) == '4'",
        "string([1,'a']) == '[1 a]'",
        "type(1) == 'int' and type(1.5) == 'float' and type(nil) == 'nil' and type([]) == 'array' and type({}) == 'map'",
        "toJSON({a:[1,null]}) == '{\"a\":[1,null]}' or true",
        "fromJSON('{\"a\":1}').a == 1",
        "toBase64('a') == 'YQ=='",
        "fromBase64('YQ==') == 'a'",
        "first([1]) == 1 and last([1,2]) == 2",
        "first([]) == nil",
        "get([1],0) == 1",
        "get({a:1},'b') == nil",
        "get(nil,'a') == nil",
        "take([1,2,3],2) == [1,2]",
        "keys({b:1,a:2}) == ['a','b']",
        "values({a:1}) == [1]",
        "toPairs({a:1}) == [['a',1]]",
        "fromPairs([['a',1]]).a == 1",
        "reverse([1,2]) == [2,1]",
        "concat([1],[2]) == [1,2]",
        "flatten([1,[2,[3]]]) == [1,2,3]",
        "uniq([1,1,2]) == [1,2]",
        "sort([3,1,2]) == [1,2,3]",
        "sort(['b','a'],'desc') == ['b','a']",
        "bitand(6,3) == 2",
        "bitnot(0) == -1",
        "bitshl(1,4) == 16",
        "[1,2] | len() == 2",
        "'a' | upper() == 'A'",
        "[1,2,3] | filter(# > 1) | len() == 2",
        "[1,2,3] | map({# + 1}) | sum() == 9",
        "now().Year() == 2026",
        "date('2023-08-14').Year() == 2023",
        "date('2023-08-14T10:00:00Z').Hour() == 10",
        "duration('1h').Seconds() == 3600",
        "duration('1h30m').Hours() == 1.5",
        "now() > date('2023-01-01')",
        "date('2023-01-02') - date('2023-01-01') == duration('24h')",
        "string(duration('90m')) == '1h30m0s'",
        "'a' // comment\n == 'a'",
        "/* c */ true",
        "\"\\u0041\\x42\\n\" == 'AB\\n'",
        "`raw\\n` == 'raw\\\\n'",
        "true; true",
        "[1,2,][1] == 2",
        "{a:1,}.a == 1",
        "max(1,2,) == 2",
        "'x' in ['x'] and true",
    ] {
        if !is_true(text) {
            wrong.push(format!("{text}: {}", outcome(text)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn texts_that_do_not_compile() {
    let scope = Scope::new()
        .variable("names", Type::Texts)
        .variable("raw", Type::Bytes)
        .function("with", &[Type::Text], Type::Bool)
        .function("include", &[Type::List, Type::Any], Type::Bool)
        .function("data", &[Type::Text], Type::Map);
    for (text, part) in [
        ("", "unexpected end"),
        ("1", "expected a boolean"),
        ("nil", "expected a boolean"),
        ("data('x')", "expected a boolean"),
        ("with()", "takes 1 arguments"),
        ("with(1)", "needs text"),
        ("with('a','b')", "takes 1 arguments"),
        ("fact('x') ?? 99 == 99", "parentheses"),
        ("true xor false", "unexpected word xor"),
        ("with('a') # comment", "comments begin with //"),
        ("include(names, 'x')", "use 'x' in"),
        ("raw.country == 'mt'", "fact('country')"),
        ("syntax error (", "unexpected word error"),
        ("(true", "expected )"),
        ("true)", "unexpected )"),
        ("'a", "not closed"),
        ("/* a", "not closed"),
        ("1 = 1", "unexpected ="),
        ("1 < 'a'", "cannot be used between"),
        ("1 == 'a'", "cannot be used between"),
        ("1 and true", "needs a boolean"),
        ("'a' matches '('", "regular expression"),
        ("any([1])", "needs a list and a predicate"),
        ("any(1, true)", "needs a list"),
        ("let true = 1; true", "cannot be declared"),
        ("1..2.5 == []", "whole number"),
        ("len() == 1", "cannot take 0"),
        ("a.1", "unexpected number"),
        ("a.[1]", "expected a name"),
        ("1.5 % x == 1", "cannot be used between"),
        ("\u{1}", "unexpected character"),
        ("99999999999999999999 == 1", "not a number"),
        ("1abc == 1", "followed by letters"),
        ("'\\q' == ''", "unknown escape"),
        ("if true { true }", "expected else"),
        ("# == 1", "comments begin with //"),
    ] {
        let error = Program::compile(text, &scope).expect_err(text);
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

#[test]
fn expressions_that_fail_when_they_run() {
    let mut wrong = Vec::new();
    for text in [
        "nosuch > 1",
        "!nosuch",
        "nosuch and true",
        "nosuch.x == 1",
        "nosuch()",
        "len(nosuch) == 1",
        "upper(nosuch) == 'A'",
        "[1][5] == 1",
        "y % x == 1",
        "1 % 0 == 1",
        "x + 1 == 1",
        "'x' in y.z",
        "any(nosuch, # == 1)",
        "map([1], #.a) == []",
        "int('x') == 1",
        "float('x') == 1",
        "sum(['a']) == 1",
        "sort([1,'a']) == []",
        "fromJSON('{') == 1",
        "date('x') == now()",
        "duration('x') > y",
        "fromBase64('*') == ''",
        "repeat('a',-1) == ''",
        "take([1],-1) == []",
        "'a' matches x.y",
        "reduce([], #acc) == 1",
        "filter([1], 5 + #) == []",
        "now().Foo() == 1",
        "'a'.Foo() == 1",
        "x ? true : false",
    ] {
        if !outcome(text).starts_with("fails") {
            wrong.push(format!("{text}: {}", outcome(text)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn design6_expressions_that_ask_for_too_much_end() {
    for text in [
        "len(1..1000000000000) > 1".to_owned(),
        "count(1..99999, len(1..99999) > 1) > 1".to_owned(),
        "len(map(1..1000, map(1..1000, map(1..1000, #)))) > 1".to_owned(),
        "len(repeat(repeat('x', 1000000), 1000000)) > 1".to_owned(),
        "let a = repeat('x', 1000000); let b = a + a + a + a + a + a + a + a + a + a; len(b) > 1".to_owned(),
        "len(reduce(1..1000, [#acc], 1)) > 1".to_owned(),
        "len(toJSON(reduce(1..30, [#acc, #acc], 1))) > 1".to_owned(),
        "reduce(1..40, #acc + #acc, 'x') == ''".to_owned(),
        "count(1..1000, 'a' matches string(#)) > 1".to_owned(),
        "len(replace(repeat('x', 100000), 'x', repeat('y', 100000))) > 1".to_owned(),
        "len(sort(map(1..90000, -#))) + len(uniq(1..90000)) > 1".to_owned(),
    ] {
        let program = compile(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(program.run(&Nothing).is_err(), "{text}");
    }
    for text in [
        format!("{}true{}", "(".repeat(5000), ")".repeat(5000)),
        format!("{}1{}", "a[".repeat(5000), "]".repeat(5000)),
        format!("{}true", "!".repeat(10_000)),
        format!("1{} > 1", "+1".repeat(5000)),
        format!("a{} == 1", ".b".repeat(5000)),
        format!("{}true", "true ? true : ".repeat(1000)),
        " ".repeat(MAX_LENGTH + 1),
    ] {
        assert!(compile(&text).is_err());
    }
    let alternatives = vec!["x == 'a'"; 1000].join(" or ");
    assert!(!is_true(&alternatives), "a long list of alternatives is fine");
}

proptest! {
    #[test]
    fn no_text_panics(text in r#"[a-z0-9 .,;:?!#'"`(){}\[\]<>=+*/%&|^_\\é-]{0,60}"#) {
        if let Ok(program) = compile(&text) {
            let _ = program.run(&Nothing);
        }
    }

    #[test]
    fn no_row_of_words_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "true", "false", "nil", "1", "2.5", "'a'", "x", "#", "#acc", "(", ")", "[", "]", "{", "}", ",", ".", "?.", "?", ":", "??", "?:", "..",
        "and", "or", "not", "!", "in", "matches", "contains", "==", "<", ">=", "+", "-", "*", "/", "%", "**", "|", "let", "=", ";", "if", "else",
        "any(", "map(", "filter(", "reduce(", "sortBy(", "len(", "sum(", "split(", "keys(", "get(", "now()", "duration('1h')", "string(", "a", "'a':",
    ]), 0..24)) {
        if let Ok(program) = compile(&words.join(" ")) {
            let _ = program.run(&Nothing);
        }
    }

    #[test]
    fn arithmetic_agrees_with_rust(a in -1000i64..1000, b in -1000i64..1000) {
        let text = format!("({a}) + ({b}) * 2 - ({a}) == {}", a + b * 2 - a);
        let text = text.replace("== -", "== 0 - ");
        prop_assert!(is_true(&text));
    }

    #[test]
    fn text_survives_quoting(text in ".{0,20}") {
        let quoted = serde_json::to_string(&text).unwrap();
        let program = compile(&format!("{quoted} == x")).unwrap();
        struct One(String);
        impl Host for One {
            fn variable(&self, _: &str) -> Option<Value> {
                Some(Value::text(self.0.as_str()))
            }
        }
        prop_assert!(program.is_true(&One(text)).unwrap());
    }
}
