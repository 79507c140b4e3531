"""What may stand in an expression, what may not, and what is said of it."""

import pytest

from ffb.configuration.expression import (
    CALLS,
    Code,
    Kind,
    Term,
    anything,
    names_in,
    read,
    translate,
    written,
)


def find(name, at, many=False):
    """A run with a number ``x``, a truth ``ok``, and a path ``spot/sum``."""
    if many and name != "line":
        return f"{name} is one value a shot"
    if many:
        return Term(Kind.ANY, "over_line")
    kinds = {"x": Kind.NUMBER, "ok": Kind.TRUTH, "spot/sum": Kind.NUMBER}
    return Term(kinds[name], name.replace("/", "_")) if name in kinds else f"no column {name}"


def wrong(text, wanted=Kind.ANY):
    return translate(text, find, wanted, Code())[1]


REFUSED = {
    "x +": "cannot be read at its end: invalid syntax",
    "x = 1": "invalid syntax; write == to compare",
    "(x": "'(' was never closed",
    "": "cannot be read",
    "x; import os": "cannot be read",
    "x # and y": "has a '#'",
    "x" * 2001: "2001 characters",
    "-" * 1999 + "x": "nested too deeply",
    "__import__('os').system('true')": "no function",
    "x.__class__": "no column x/__class__",
    "(x).y[0]()": "no function 'x.y[0]'",
    "[x for x in y]": "cannot take '[x for x in y]'",
    "lambda: x": "cannot take",
    "(y := x)": "cannot take",
    "f'{x}'": "has no place",
    "b'x'": "has no place",
    "1j": "has no place",
    "True": "has no place",
    "...": "a column is a.b",
    "[1, 2]": "cannot take",
    "*x": "cannot be read",
    "x if ok else 1": "write where(condition, a, b)",
    "ok & ok": "write `and`",
    "ok | ok": "write `or`",
    "~ok": "write `not`",
    "x ^ 2": "a power is written **",
    "x << 2": "known are numbers, columns",
    "x is 1": "write ==",
    "x in (1, 2)": "write x == 1 or x == 2",
    "x not in (1, 2)": "write != for each",
    "1" + "0" * 400: "infinity is written inf",
    "1e999": "infinity is written inf",
    "x and ok": "x is a number, not yes or no",
    "not x": "x is a number, not yes or no",
    "where(x, 1, 2)": "x is a number, not yes or no",
    "where(ok, 1)": "it is where(condition, a, b)",
    "min(x)": "x is one value a shot",
    "min()": "it is min(a, b, ...)",
    "sum(line, x)": "it is sum(x[0:10])",
    "ratio(x)": "it is ratio(a, b, least)",
    "sum(x + 1)": "sum takes the values of a column",
    "sum(line[0:9:2])": "write a place as x[3], x[0:10], x[2, 0:10]",
    "sum(line[-3:])": "write a place as",
    "sum(line[x])": "write a place as",
    "mean(sum(line))": "mean takes the values of a column",
    "'\\d' > 1": "cannot be read",
    "x > 1 if": "cannot be read",
    "x\0": "cannot be read",
    "'\ud800' > 1": "cannot be read",
    "ѕqrt(x)": "did you mean 'sqrt'?",
    "x\u2009> 1 and х > 1": "no column х",
    "(" * 900 + "x" + ")" * 900: "nested",
    "[" * 1000: "nested",
    "not " * 490 + "x": "nested",
    "9**9**9**9**9**9 and ok": "is a number, not yes or no",
    "x" * (1 << 20): "1048576 characters; at most 2000",
    "x.__dict__['a']": "an index is a whole number",
    "sum.__globals__": "no column sum/__globals__",
    "(lambda: x)()": "no function",
    "sqrt(x, x)": "it is sqrt(x)",
    "log(x=1)": "it is log(x)",
    "max(*x)": "it is max(a, b, ...)",
    "sqrtt(x)": "did you mean 'sqrt'?",
    "np.log(x)": "did you mean 'log'?",
    "polyval([1, 2], x)": "it is polyval(x, [c0, c1, c2])",
    "polyval(x, [])": "it is polyval(x, [c0, c1, c2])",
    "code(288)": "event codes are numbers from 0 to 287",
    "code(-1)": "event codes are numbers from 0 to 287",
    "code(40.0)": "event codes are numbers from 0 to 287",
    "code(x)": "event codes are numbers from 0 to 287",
    "code(40, 41)": "it is code(40)",
    "any_code()": "it is any_code(40, 41)",
    "x[1.5]": "an index is a whole number",
    "x[-1]": "an index is a whole number",
    "x[1:2]": "has many values; take one, or their sum, mean, min or max",
    "spot/sum": "spot/sum divides; the column is written spot.sum",
    "nosuch": "no column nosuch",
    "x > 1 && ok": "write `and` for &&",
    "x > 1 || ok": "write `or` for ||",
    "!ok": "write `not` for !",
    "x <> 1": "write != for <>",
    "x => 1": "write >= for =>",
    "x > 1 AND ok": "in small letters",
    "x == nan": "is never known; write isfinite(x)",
    "1 < x != nan": "is never known",
    "isnan(x)": "write not isfinite(x)",
    "np.isnan(x)": "write not isfinite(x)",
    "numpy.sqrtt(x)": "did you mean 'sqrt'?",
    "line.mean() > 1": "write mean(line)",
    "spot.sum.sqrt() > 1": "it is sqrt(x)",
    "ok == True": "True has no place in an expression; write 1",
    "any_code([40, 41])": "as in any_code(40, 41)",
    "timing.eventcodes[183] == 1": "write event codes as code(40)",
    "evr.code_183": "write event codes as code(40)",
    "SQRT(x)": "did you mean 'sqrt'?",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_everything_else_is_refused_with_a_sentence(text):
    said = wrong(text)
    assert any(REFUSED[text] in s for s in said), said
    assert all("\n" not in s for s in said)


def test_all_that_is_wrong_is_told():
    assert len(wrong("nosuch + nobody and sqrtt(x) ^ x")) == 4


def test_a_number_is_no_filter_and_a_truth_no_number():
    assert "compare it with something" in wrong("x + 1", Kind.TRUTH)[0]
    assert "under [filters]" in wrong("x > 1", Kind.NUMBER)[0]
    assert wrong("where(ok, x, 1)", Kind.NUMBER) == wrong("where(ok, ok, x > 1)", Kind.TRUTH) == []
    assert wrong("ok + 1", Kind.NUMBER) == []


def test_every_function_is_called_as_the_message_says():
    for call in CALLS.values():
        example = call.partition(", that is")[0].replace("condition", "c > 0").replace(", ...", "")
        assert translate(example, anything, Kind.ANY, Code())[1] == [], example


def test_a_column_is_a_path_with_dots_or_a_text():
    assert names_in("spot.sum / 'my-detector/x' + a.b.c - x[3] * min(nan, pi)") == {
        "spot/sum", "my-detector/x", "a/b/c", "x",
    }  # fmt: skip
    for name in ("spot/sum", "x", "my-detector/x", "a/lambda", "pi", "0/x", "é/ü"):
        assert names_in(written(name)) == {name}
    assert written("spot/sum") == "spot.sum"


def test_lines_of_a_text_are_one_expression():
    assert wrong("x +\n   spot.sum\n  > 1", Kind.TRUTH) == []
    assert read("x\n+ 1")


def test_equal_steps_are_done_once():
    code = Code()
    a, b = (translate("sqrt(x) > 1 and code(40)", find, Kind.TRUTH, code) for _ in range(2))
    assert a == b
    assert len(code.lines) == 4
