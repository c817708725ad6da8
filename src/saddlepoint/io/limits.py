"""Reading files that may come from a stranger: nothing is executed, and sizes are limited."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from saddlepoint.errors import UsageError
from saddlepoint.extras import needs

with needs("train", "saddlepoint.io.limits"):
    import yaml

MAX_YAML_BYTES = 1 << 18
"""Size of a configuration or a study, 256 KiB; the largest of the project takes a twentieth."""

MAX_JSON_BYTES = 1 << 26
"""Size of a summary, an evaluation or a comparison, 64 MiB; 1,000 compared runs take a tenth."""

MAX_LOG_BYTES = 1 << 28
"""Size of a run's log, 256 MiB; with a line every 50 steps, some forty million steps."""

_MAX_DEPTH = 40
_MAX_EXPANDED = 1 << 20  # characters and nodes of a YAML document with all aliases expanded
_MAX_DIGITS = 19  # of an integer

_STR, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float"))
_PLAIN_TAGS = {
    _STR,
    _INT,
    _FLOAT,
    *(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "null", "map", "seq")),
}
_MERGE = "tag:yaml.org,2002:merge"
_DATE = "tag:yaml.org,2002:timestamp"

# Integers and floats of YAML 1.2, as regular expressions
_EXPONENT_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_POINT_FLOAT = re.compile(
    r"^[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$"
    r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)
_INTEGER = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$")
# What YAML 1.1 reads as a number in another base: 010 (base 8), 1:30 (base 60)
_OTHER_BASE = re.compile(r"^[-+]?0[0-7_]+$|:")


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file.

    Raises:
        UsageError: the file is larger than ``max_bytes``, or is not a regular file: a pipe or a
            device might never end.
        OSError: the file cannot be read.
    """
    if "\0" in str(path):
        raise UsageError(f"{str(path)!r} is not a valid file name: it contains a zero byte.")
    # the shell's <(command) is a pipe in /dev
    if path.exists() and not path.is_file() and path.parts[:2] != ("/", "dev"):
        raise UsageError(f"{path} is not a regular file.")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise UsageError(
            f"{path} is larger than {max_bytes:,} bytes, the limit for this kind of file. It is"
            " corrupt, or another program wrote it."
        )
    return content


def parse_yaml(text: str) -> Any:
    """Return a YAML document as dicts with str keys, lists, str, int, float, bool and None.

    Numbers such as 1e-3 are floats; ``1:30`` and ``010``, numbers in bases 60 and 8 in YAML 1.1,
    and dates are str.

    Raises:
        yaml.YAMLError: the text is not YAML, contains any other tag or a duplicate key, is nested
            deeper than 40 levels, or is longer than a million characters with all aliases expanded.

    >>> parse_yaml("{lr: 1e-3, when: 2001-01-01}")
    {'lr': 0.001, 'when': '2001-01-01'}
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_node(node, {}, 0)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, IndexError) as error:  # PyYAML raises them for !!int "" and the like
        raise yaml.YAMLError(f"a value does not fit its tag: {error}") from error


def dump_yaml(tree: Any) -> str:
    """Return plain containers as YAML that ``parse_yaml`` reads back to the same.

    Strings such as "1e5" are quoted.

    >>> dump_yaml({"data_dir": "1e5"})
    "data_dir: '1e5'\\n"
    """
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    NaN and infinity become None, and integers of more than 19 digits become floats.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or contains a string that cannot be
            encoded as UTF-8.
    """
    try:
        value = json.loads(text, parse_constant=lambda _: None, parse_int=_parse_int)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):  # one half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def refuse_symlinks(directory: Path) -> None:
    """Refuse a directory that contains a symbolic link at any depth.

    What is read or written through a link lies outside of the directory.

    Raises:
        UsageError: it names the link.
    """
    folders = [os.fspath(directory)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise UsageError(
                        f"{entry.path} is a symbolic link. The files of a run or a comparison must"
                        " lie in its own directory: replace the link by the file, or remove it. The"
                        " directory itself may be a link."
                    )
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of YAML 1.2.

    1e-3 is a number; 1:30 (90 in YAML 1.1), 010 (8 there) and dates are strings.
    """


class _Dumper(yaml.SafeDumper):
    """Quotes strings that ``_Loader`` would read as numbers."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT, _EXPONENT_FLOAT, list("-+0123456789."))
_replaced = (_DATE, _INT, _FLOAT)
for _first, _known in _Loader.yaml_implicit_resolvers.items():
    _Loader.yaml_implicit_resolvers[_first] = [
        (tag, pattern)
        for tag, pattern in _known
        if tag not in _replaced or pattern is _EXPONENT_FLOAT
    ]
_Loader.add_implicit_resolver(_INT, _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT, _POINT_FLOAT, list("-+0123456789."))


def _check_node(node: yaml.Node, sizes: dict[int, int | None], depth: int) -> int:
    """Return the size of a node with all aliases expanded; refuse what is not plain or too large.

    Args:
        node: the node.
        sizes: size of each node by its identity; None while a node is being measured, which reveals
            a node that contains itself.
        depth: depth of the node.
    """
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise _yaml_error(node, "a value contains itself")
        return size
    if depth > _MAX_DEPTH:
        raise _yaml_error(node, f"it is nested deeper than {_MAX_DEPTH} levels")
    sizes[id(node)], size = None, 1

    children: list[yaml.Node] = []
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith(":int") and len(node.value) > _MAX_DIGITS + 2:
            raise _yaml_error(node, f"an integer has more than {_MAX_DIGITS} digits")
        # an explicit tag, such as !!int 010
        if node.tag in (_INT, _FLOAT) and _OTHER_BASE.search(node.value):
            raise _yaml_error(node, f"{node.value} is not a number in base 10")
        try:
            node.value.encode()
        except UnicodeEncodeError:
            raise _yaml_error(node, "a string contains half of a surrogate pair") from None
        size += len(node.value)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.tag not in (_STR, _MERGE):
                raise _yaml_error(key, "a key is not a string; put it into quotes")
            # of a duplicate key the first value would be lost; << may occur several times
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                line = key.start_mark.line + 1
                if key.value in lines:
                    where = f"in lines {lines[key.value]} and {line}"
                    raise _yaml_error(key, f'the key "{key.value}" is given twice, {where}')
                lines[key.value] = line
            children += [key, value]
    else:
        children = node.value

    for child in children:
        size += _check_node(child, sizes, depth + 1)
        if size > _MAX_EXPANDED:
            limit = f"{_MAX_EXPANDED:,} characters with all aliases expanded"
            raise _yaml_error(node, f"it has more than {limit}")
    if node.tag not in _PLAIN_TAGS and node.tag != _MERGE:
        raise _yaml_error(node, f"the tag {node.tag} is not allowed")
    sizes[id(node)] = size
    return size


def _yaml_error(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
