"""Prometheus text format: a reader, and a strict checker of what we serve."""
import math
import re

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_TYPES = ("counter", "gauge", "histogram", "summary", "untyped")


class FormatError(AssertionError):
    pass


class Metrics(dict):
    """{(name, ((label, value), ...)): float}"""

    def samples(self, name, **labels):
        want = {(k, str(v)) for k, v in labels.items()}
        return {k: v for k, v in self.items()
                if k[0] == name and want <= set(k[1])}

    def total(self, name, **labels):
        """Sum of matching samples; a metric that is not there counts 0."""
        return sum(self.samples(name, **labels).values())

    def names(self):
        return {k[0] for k in self}

    def labels(self, name, label):
        return {dict(k[1]).get(label) for k in self if k[0] == name}


def _value(text):
    special = {"+Inf": math.inf, "-Inf": -math.inf, "NaN": math.nan}
    if text in special:
        return special[text]
    if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text):
        raise FormatError(f"not a number: {text!r}")
    return float(text)


def _labels(text, line):
    """Parses {a="b",...}; returns (pairs, rest of the line)."""
    pairs, i = [], 1
    while text[i] != "}":
        eq = text.index("=", i)
        name = text[i:eq]
        if not _LABEL.match(name) or name.startswith("__"):
            raise FormatError(f"bad label name {name!r}: {line}")
        if text[eq + 1] != '"':
            raise FormatError(f"label value not quoted: {line}")
        i, value = eq + 2, ""
        while text[i] != '"':
            if text[i] == "\\":
                i += 1
                if text[i] not in '\\"n':
                    raise FormatError(f"bad escape: {line}")
                value += {"n": "\n"}.get(text[i], text[i])
            else:
                value += text[i]
            i += 1
        i += 1
        pairs.append((name, value))
        if text[i] == ",":
            i += 1
        elif text[i] != "}":
            raise FormatError(f"expected , or }}: {line}")
    if len({n for n, _ in pairs}) != len(pairs):
        raise FormatError(f"label twice: {line}")
    return tuple(sorted(pairs)), text[i + 1:]


def _sample(line):
    m = re.match(r"[^\s{]+", line)
    if not m or not _NAME.match(m.group()):
        raise FormatError(f"bad sample: {line!r}")
    rest, pairs = line[m.end():], ()
    if rest.startswith("{"):
        try:
            pairs, rest = _labels(rest, line)
        except (IndexError, ValueError):
            raise FormatError(f"unfinished labels: {line!r}") from None
    fields = rest.split(" ")
    if len(fields) != 2 or fields[0]:
        raise FormatError(f"not 'name value': {line!r}")
    return m.group(), pairs, _value(fields[1])


def parse(text):
    """Reads and checks the grammar of every line."""
    return _walk(text)[0]


def _walk(text):
    found, types, helps, order = Metrics(), {}, {}, []
    if text and not text.endswith("\n"):
        raise FormatError("no line end at the end")
    for line in text.split("\n")[:-1]:
        if not line:
            continue
        if line.startswith("#"):
            kind, _, rest = line[2:].partition(" ")
            name, _, value = rest.partition(" ")
            if kind == "TYPE":
                if name in types or value not in _TYPES:
                    raise FormatError(f"bad or second TYPE: {line}")
                types[name] = value
            elif kind == "HELP":
                if name in helps or not value:
                    raise FormatError(f"empty or second HELP: {line}")
                helps[name] = value
            continue
        name, pairs, value = _sample(line)
        if (name, pairs) in found:
            raise FormatError(f"sample twice: {line}")
        found[name, pairs] = value
        order.append((name, pairs))
    return found, types, helps, order


def _family(name, types):
    for suffix in ("_bucket", "_sum", "_count"):
        base = name[:-len(suffix)]
        if name.endswith(suffix) and types.get(base) == "histogram":
            return base
    return name


def _check_histogram(base, found):
    series = {}
    for (name, pairs), value in found.items():
        if name == base + "_bucket":
            labels = dict(pairs)
            le = _value(labels.pop("le"))
            series.setdefault(tuple(sorted(labels.items())), []).append(
                (le, value))
    if not series:
        raise FormatError(f"{base}: no buckets")
    for key, buckets in series.items():
        buckets.sort()
        counts = [c for _, c in buckets]
        if buckets[-1][0] != math.inf or counts != sorted(counts):
            raise FormatError(f"{base}{key}: buckets not cumulative")
        if found.get((base + "_count", key)) != counts[-1]:
            raise FormatError(f"{base}{key}: _count is not the last bucket")
        if (base + "_sum", key) not in found:
            raise FormatError(f"{base}{key}: no _sum")


def check(text, prefix=("stentor_", "process_")):
    """Everything a strict scraper or linter may ask for; returns Metrics."""
    found, types, helps, order = _walk(text)
    seen, last = set(), None
    for name, _ in order:
        family = _family(name, types)
        if family not in types or family not in helps:
            raise FormatError(f"{family}: TYPE or HELP is missing")
        if family != last and family in seen:
            raise FormatError(f"{family}: samples are not together")
        seen.add(family)
        last = family
        if not family.startswith(prefix):
            raise FormatError(f"{family}: prefix")
        if (types[family] == "counter") != name.endswith("_total"):
            raise FormatError(f"{name}: _total means counter")
    for base, kind in types.items():
        if kind == "histogram" and base in seen:
            _check_histogram(base, found)
    for (name, pairs), value in found.items():
        if types[_family(name, types)] in ("counter", "histogram"):
            if not value >= 0:
                raise FormatError(f"{name}{pairs}: {value}")
    return found
