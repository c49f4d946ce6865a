"""Asks a box questions and prints its best answers.

Run as `python demo/ask.py --url http://127.0.0.1:8000 --key-file KEY ["a question" ...]`.
"""

import argparse
import os
import shutil
import sys
import textwrap
import unicodedata

from client import Answer, Result, add_box_arguments, box_of, run

QUESTIONS = ["반품 정책은 어떻게 되나요?", "How long do I have to return an item?"]
SHOWN = 3
EXCERPT = 120
INDENT = " " * 10


def columns(text: str) -> int:
    """Terminal columns a text takes: Korean syllables take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def wrapped(text: str, width: int) -> list[str]:
    """Breaks a text at spaces into lines of at most `width` columns."""
    lines: list[str] = []
    for word in text.split():
        if lines and columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + "…"


def emphasised(text: str) -> str:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
    return text if plain else f"\033[1m{text}\033[0m"


def show_result(rank: int, result: Result, width: int) -> None:
    print(f"  {rank}  {result.score:.3f}  {emphasised(result.title)}  [{result.document_id}]")
    print(textwrap.indent("\n".join(wrapped(excerpt(result.text), width - len(INDENT))), INDENT))


def show(question: str, answer: Answer) -> None:
    width = min(shutil.get_terminal_size().columns, 100)
    print(emphasised(question))
    for rank, result in enumerate(answer.results[:SHOWN], 1):
        show_result(rank, result, width)
    if not answer.results:
        print("  no result: ingest the corpus first, with demo/ingest.py")
    reranking = f"reranked {answer.candidates} candidates" if answer.reranked else f"not reranked: {answer.why}"
    print(f"  ({reranking}; {answer.total_ms:.0f} ms)\n")


def is_first(answer: Answer, expected: str, question: str) -> bool:
    """Whether the expected document came first; says so on stderr where it did not."""
    found = [result.document_id for result in answer.results]
    if found[:1] == [expected]:
        return True
    place = f"it came {found.index(expected) + 1}." if expected in found else f"it is not in the first {len(found)}"
    first = found[0] if found else "nothing"
    print(f"error: {question!r}: expected {expected} first, found {first}; {place}", file=sys.stderr)
    return False


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask the box questions; without any, the two of the demo.")
    parser.add_argument("questions", nargs="*", metavar="QUESTION")
    parser.add_argument(
        "--expect", action="append", default=[], metavar="ID",
        help="document that has to come first, once for each question in their order; otherwise exit 1",
    )  # fmt: skip
    add_box_arguments(parser)
    arguments = parser.parse_args(argv)
    questions: list[str] = arguments.questions or QUESTIONS
    if arguments.expect and len(arguments.expect) != len(questions):
        parser.error(f"{len(arguments.expect)} --expect for {len(questions)} questions: give one for each, in order")

    box = box_of(arguments)
    answers = [box.search(question) for question in questions]
    for question, answer in zip(questions, answers, strict=True):
        show(question, answer)
    checks = zip(answers, arguments.expect, questions, strict=False)
    return 0 if all([is_first(*check) for check in checks]) else 1


if __name__ == "__main__":
    run(main)
