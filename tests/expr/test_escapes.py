"""Published ways out of expression sandboxes; none of them leads anywhere here."""

from __future__ import annotations

import pytest

from stemflow.expr import ExpressionError, compile_expression, parse_template

ENV = {"inputs": {"s": "text", "n": 1, "list": [1], "o": {"a": 1}}}

ESCAPES = [
    # Python: from a literal to the list of all classes
    "().__class__.__bases__[0].__subclasses__()",
    "''.__class__.__mro__[1].__subclasses__()[40]('/etc/passwd').read()",
    "[].__class__",
    "inputs.__class__",
    "inputs.s.__class__.__base__",
    "inputs['__class__']",
    "inputs.s['__class__']",
    "inputs.n.real",
    "inputs.list.append(1)",
    "inputs.o.pop('a')",
    "inputs.o.update({'a': 2})",
    "inputs.o.get('a')",
    "inputs.s.format(inputs)",
    "'{0.__class__}'.format(inputs)",
    "'{a.__class__}'.format_map(inputs)",  # CVE-2019-10906
    "inputs.s.format",  # CVE-2016-10745, CVE-2024-56326: the method kept for later
    "[f for f in [inputs.s.format]][0]('x')",
    "format(inputs, '{0.__class__}')",
    "format('x', '{0.__class__}')",
    "f'{inputs.s.__class__}'",
    "f'{inputs!r}'",
    "f'{inputs.s:{inputs.n}}'",
    "inputs | attr('__class__')",  # Jinja2, CVE-2025-27516
    "inputs.s|attr('format')",
    "cycler.__init__.__globals__.os.popen('id').read()",
    "lipsum.__globals__",
    "self.__init__.__globals__.__builtins__",
    # builtins and statements
    "__import__('os').system('id')",
    "__builtins__",
    "eval('1')",
    "exec('1')",
    "open('/etc/passwd')",
    "getattr(inputs, 'x')",
    "globals()",
    "vars()",
    "type(inputs)",
    "compile('1', '', 'eval')",
    "breakpoint()",
    "input()",
    "print(1)",
    "len.__self__",
    "len.__globals__",
    "len.__call__('x')",
    "(lambda: 1)()",
    "(lambda f: f(f))(lambda f: f(f))",
    "[x := 1]",
    "(yield 1)",
    "(await inputs)",
    "import os",
    "inputs; 1",
    "inputs.n = 2",
    "del inputs",
    "*inputs",
    "len(*inputs.list)",
    "sorted(inputs.list, **inputs.o)",
    "sorted(inputs.list, key=len)",
    # frames of generators: CVE-2026-0863 and older
    "(x for x in [1]).gi_frame.f_back.f_globals",
    "(x for x in [1])",
    "[(x for x in [1])]",
    "first((x for x in [1]).gi_frame for y in [1])",
    "[g.gi_frame for g in [1]]",
    "first([len])",
    # other engines: Nashorn, n8n, SpEL, shell
    "java.lang.Runtime.getRuntime().exec('id')",
    "this.constructor.constructor('return process')()",
    "inputs.constructor",
    "inputs.s.constructor.constructor('return this')()",
    "process.mainModule.require('child_process')",
    "T(java.lang.Runtime)",
    "$(id)",
    "`id`",
    "#{7*7}",
    "{{ 7*7 }}",
    "${7*7}",
    "%(inputs)s",
    # closing the place that holds the expression
    "1) or (1",
    "1] or [1",
    "1\n]\n+[1",
    "1]\n#",
    "1 }} ${{ 2",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_published_escape_is_refused(source: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(source, ["inputs"])(ENV)


def test_a_value_that_looks_like_an_expression_stays_a_value() -> None:
    hostile = "${{ inputs.secret }} {{ 7*7 }} {0.__class__} $(id)"
    env = {"inputs": {"s": hostile, "secret": "hunter2"}}
    filled = parse_template(
        {"a": "${{ inputs.s }}", "b": "<${{ inputs.s }}>", "c": ["${{ f'{inputs.s}' }}"]}, ["inputs"]
    )
    assert filled(env) == {"a": hostile, "b": f"<{hostile}>", "c": [hostile]}
    assert parse_template("{0.__class__}", ["inputs"])(env) == "{0.__class__}"
