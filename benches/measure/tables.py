"""Formats Markdown tables and numbers."""


def table(heading, note, columns, rows):
    """Returns a section with one table. Columns of numbers are aligned to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    align = ["---:" if _is_number(column) else "---" for column in zip(*rows)]
    lines = [" | ".join(cells) for cells in (columns, align, *rows)]
    return "\n".join([f"## {heading}", "", *([note, ""] if note else []), *(f"| {line} |" for line in lines)])


def _is_number(cells):
    return all(cell[:1].isdigit() or cell == "" for cell in cells)


def whole(number):
    return f"{number:,.0f}"


def short(number):
    """Formats a number with about three significant digits."""
    if number == 0:
        return "0"
    decimals = 3 if number < 1 else 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{decimals}f}".removesuffix(".0")
