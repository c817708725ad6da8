"""Reading files that a stranger may have written: nothing in them is executed, and what they may ask for is limited."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saddlepoint.errors import UsageError
from saddlepoint.extras import needs

with needs("train", "saddlepoint.reading"):
    import yaml

YAML_BYTES = 1 << 18
"""Of a configuration or a study; the largest of ours is a twentieth of it."""

JSON_BYTES = 1 << 26
"""Of a summary, an evaluation or a comparison, 64 MiB; a comparison of a thousand runs is a tenth of it."""

LOG_BYTES = 1 << 28
"""Of a run's log, 256 MiB; a line every 50 steps fills it in some forty million steps."""

_DEPTH = 40
_EXPANDED = 1 << 20  # characters and nodes of a YAML document when every alias is written out
_DIGITS = 19  # a longer whole number is none that anything here counts
_PLAIN = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")
}
_MERGE = "tag:yaml.org,2002:merge"
_DATE = "tag:yaml.org,2002:timestamp"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


def read_bytes(path: Path, most: int) -> bytes:
    """Return a file's content.

    Raises:
        UsageError: it is larger than ``most`` bytes, or no file but a pipe or a device, which could
            be read for ever.
        OSError: it cannot be read.
    """
    if "\0" in str(path):
        raise UsageError(f"{str(path)!r} is no name of a file: it has a zero byte in it.")
    # what a shell makes of <(command) lies there
    if path.exists() and not path.is_file() and path.parts[:2] != ("/", "dev"):
        raise UsageError(f"{path} is not a regular file.")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UsageError(
            f"{path} is larger than {most:,} bytes, which no such file is. It is damaged, or"
            " another program wrote it."
        )
    return content


def parse_yaml(text: str) -> Any:
    """Return a YAML document as mappings with text as keys, lists, text, numbers, booleans and null; numbers such as 1e-3 are numbers.

    ``1:30`` and ``010``, numbers to base 60 and 8 in YAML 1.1, are text.

    Raises:
        yaml.YAMLError: it is not YAML, holds anything else, has a key twice in one mapping, is
            nested deeper than 40 levels, or is longer than a million characters when every alias is
            written out.

    >>> parse_yaml("{lr: 1e-3, when: 2001-01-01}")
    {'lr': 0.001, 'when': '2001-01-01'}
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _expanded(node, {}, 0)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, IndexError) as error:  # what PyYAML makes of !!int "" and its like
        raise yaml.YAMLError(f"a value is not what its tag says: {error}") from error


def dump_yaml(tree: Any) -> str:
    """Return plain containers as YAML that ``parse_yaml`` reads back to the same: a text such as "1e5" is put into quotes.

    >>> dump_yaml({"data_dir": "1e5"})
    "data_dir: '1e5'\\n"
    """
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_json(text: str) -> Any:
    """Return what JSON holds, NaN and infinities as None and whole numbers of more than 19 digits as floats.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds text that cannot be written.
    """
    try:
        found = json.loads(text, parse_constant=lambda _: None, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):  # one half of a surrogate pair
        json.dumps(found, ensure_ascii=False).encode()
    return found


def flag_taken_for_number(given: Any, found: Any, above: str = "") -> str | None:
    """Return the key of a truth value that has become a number, None where there is none: YAML reads yes, on and true as one.

    Args:
        given: plain containers.
        found: what was made of them: containers, or objects with the keys as attributes.
        above: the key of ``given``.

    >>> flag_taken_for_number({"lr": True, "fused": True}, {"lr": 1.0, "fused": True})
    'lr'
    """
    if isinstance(given, bool):
        return above if isinstance(found, int | float) and not isinstance(found, bool) else None
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(given, Mapping):
        for key, inner in given.items():
            made = found.get(key) if isinstance(found, Mapping) else getattr(found, str(key), None)
            pairs.append((f"{above}.{key}" if above else str(key), inner, made))
    elif isinstance(given, list | tuple) and isinstance(found, list | tuple):
        pairs = [(above, inner, made) for inner, made in zip(given, found, strict=False)]
    for key, inner, made in pairs:
        flag = flag_taken_for_number(inner, made, key)
        if flag is not None:
            return flag
    return None


TRUTH = "YAML reads yes, no, on, off, true and false as truth values, and a number is needed"
"""What is said of such a key."""


def refuse_links(directory: Path) -> None:
    """Refuse a directory with a symbolic link anywhere in it: what is written through one, or read, lies elsewhere.

    Raises:
        UsageError: it names the link.
    """
    folders = [os.fspath(directory)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise UsageError(
                        f"{entry.path} is a symbolic link. What a run or a comparison writes and"
                        " reads must lie in its own directory: put the file there, or remove the"
                        " link. The directory itself may be reached by one."
                    )
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of YAML 1.2: 1e-3 is a number, 1:30 (90 in YAML 1.1), 010 (8 there) and dates are text."""


class _Dumper(yaml.SafeDumper):
    """Knows what the loader reads as a number."""


_NUMBER = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
# of what YAML 1.1 reads as numbers: 010 to base 8, 1:30 to base 60
_OTHER_BASE = re.compile(r"^[-+]?0[0-7_]+$|:")
_WHOLE = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$")
_WITH_POINT = re.compile(
    r"^[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT, _NUMBER, list("-+0123456789."))
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in known
        if tag not in (_DATE, _INT) and not (tag == _FLOAT and pattern is not _NUMBER)
    ]
    for first, known in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, _WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT, _WITH_POINT, list("-+0123456789."))


def _expanded(node: yaml.Node, known: dict[int, int | None], depth: int) -> int:
    """Return the size of a node with all aliases in it written out; refuse what is not plain.

    Args:
        node: the node.
        known: node → its size; None while it is being measured, so that one which holds itself is
            seen.
        depth: of the node.
    """
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise _error(node, "a value holds itself")
        return size
    if depth > _DEPTH:
        raise _error(node, f"it is nested deeper than {_DEPTH} levels")
    known[id(node)], size = None, 1
    if isinstance(node, yaml.ScalarNode):
        size += _scalar(node)
    else:
        if isinstance(node, yaml.MappingNode):
            _check_unique(node)
        for child in node.value:
            if isinstance(child, tuple):
                _check_key(child[0])
            for inner in child if isinstance(child, tuple) else (child,):
                size += _expanded(inner, known, depth + 1)
                if size > _EXPANDED:
                    raise _error(
                        node,
                        f"it has more than {_EXPANDED:,} characters when every alias is"
                        " written out",
                    )
    if node.tag not in _PLAIN and node.tag != _MERGE:
        raise _error(node, f"the tag {node.tag} stands for no plain value")
    known[id(node)] = size
    return size


def _scalar(node: yaml.ScalarNode) -> int:
    if node.tag.endswith(":int") and len(node.value) > _DIGITS + 2:
        raise _error(node, f"a whole number has more than {_DIGITS} digits")
    # a tag written out, such as !!int 010
    if node.tag in (_INT, _FLOAT) and _OTHER_BASE.search(node.value):
        raise _error(node, f"{node.value} is no number to base 10")
    try:
        node.value.encode()
    except UnicodeEncodeError:
        raise _error(node, "a text holds half a character") from None
    return len(node.value)


def _check_key(key: yaml.Node) -> None:
    if key.tag not in ("tag:yaml.org,2002:str", _MERGE):
        raise _error(key, "a key is no text; put it into quotes")


def _check_unique(mapping: yaml.MappingNode) -> None:
    """Refuse a key that is given twice: the first value would be dropped. Several merge keys, <<, are allowed."""
    lines: dict[str, int] = {}
    for key, _ in mapping.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            if key.value in lines:
                raise _error(
                    key,
                    f'the key "{key.value}" is given twice, in lines {lines[key.value]} and {line}',
                )
            lines[key.value] = line


def _error(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
