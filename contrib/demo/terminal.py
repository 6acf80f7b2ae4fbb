"""Lines for who watches: written at once, bold only where a terminal shows it."""

import sys


def heading(number: int, text: str) -> None:
    show(f"\n{bold(f'{number}. {text}')}")


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def show(text: str) -> None:
    print(text, flush=True)
