"""Names every error of the toolkit that no test has reached: the last step of `make test`.

What was executed is in the data of coverage, which pytest-cov has put together from all processes: nothing more is
traced, on no version of Python, and a `raise` whose line was executed is a `raise` that was reached. Tests whose lines
are not traced (`no_cover`, see conftest.py) do not count. That the message says what it should is for the test to see,
by `match=`.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage

ROOT = Path(__file__).parents[1]

EXCEPTIONS = {"click.exceptions.Exit(1)": "a study of `all` has failed: by test_everything.py, which is not traced"}
"""Statements that no traced test can reach: some of their words, and why."""


@dataclass(frozen=True)
class Site:
    """A statement that raises.

    Attributes:
        file: from the root of the repository.
        lines: of the statement.
        code: of the statement.
    """

    file: str
    lines: range
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.lines.start} {self.code}"


def sites_in(source: str, file: str) -> Iterator[Site]:
    """Every `raise` of an exception that is made there, and every `fail` of a kind of parameter."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Raise(exc=ast.Call()) | ast.Expr(value=ast.Call(func=ast.Attribute(attr="fail"))):
                yield Site(file, range(node.lineno, (node.end_lineno or 0) + 1), ast.unparse(node))


def all_sites() -> list[Site]:
    """Those of the toolkit."""
    paths = [path for room in ("irevnet", "analysis", "figures") for path in (ROOT / room).rglob("*.py")]
    return [
        site
        for path in sorted([*paths, ROOT / "cli.py"])
        for site in sites_in(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]


def complaints(sites: list[Site], executed: Callable[[str], set[int]], exceptions: dict[str, str]) -> list[str]:
    """Statements that were not reached and are no exceptions, and exceptions that are none.

    Args:
        executed: gives the lines of a file that were executed.
    """
    unreached = [site for site in sites if executed(site.file).isdisjoint(site.lines)]
    found = [f"{site}: reached by no test" for site in unreached if not any(words in site.code for words in exceptions)]
    for words in exceptions:
        if sum(words in site.code for site in unreached) != 1:
            found.append(f"{words!r}: of no one statement that is not reached; take it out of EXCEPTIONS")
    return found


def main() -> int:
    measured = coverage.Coverage()
    measured.load()
    data = measured.get_data()
    found = complaints(all_sites(), lambda file: set(data.lines(str(ROOT / file)) or ()), EXCEPTIONS)
    print("\n".join(found) or "every raise was reached by a test")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
