"""Parts of the standard library that every launch needs, without the imports that make them slow to load.

``dataclasses``, ``enum``, ``typing``, ``contextlib``, ``functools`` and ``signal`` load ``collections``, ``re`` and
``inspect`` with them and generate code for each class: together 80 ms on a machine where a bare Python starts in 12.
Type checkers see the originals. At run time the same names are small equivalents for what this package uses of them::

    from .stdlib import NamedTuple, dataclass

A module that no plain run loads may import the originals.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""What ``typing.TYPE_CHECKING`` is: false at run time, true for type checkers."""

if TYPE_CHECKING:
    import signal as signal
    from contextlib import contextmanager as contextmanager
    from contextlib import suppress as suppress
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
    from enum import StrEnum as StrEnum
    from functools import cache as cache
    from functools import lru_cache as lru_cache
    from functools import partial as partial
    from threading import Lock as Lock
    from threading import RLock as RLock
    from typing import Any as Any
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol
else:
    import _signal as signal  # without the enums around its numbers
    from _collections import _tuplegetter
    from _functools import partial as partial
    from _thread import RLock as RLock
    from _thread import allocate_lock as Lock  # noqa: F401

    Any = object

    class Protocol:
        """Base of a class that only type checkers look at."""

    class suppress:
        """``contextlib.suppress``: the given exceptions end the block, and no more."""

        __slots__ = ("_kinds",)

        def __init__(self, *kinds):
            self._kinds = kinds

        def __enter__(self):
            return None

        def __exit__(self, kind, error, traceback):
            return kind is not None and issubclass(kind, self._kinds)

    def contextmanager(function):
        """``contextlib.contextmanager``."""
        return lambda *args, **given: _Generated(function(*args, **given))

    class _Generated:
        def __init__(self, generator):
            self._generator = generator

        def __enter__(self):
            return next(self._generator)

        def __exit__(self, kind, error, traceback):
            if error is None:
                next(self._generator, None)
                return False
            try:
                self._generator.throw(error)
            except StopIteration as end:
                return end is not error
            except BaseException as raised:
                if raised is error:
                    return False
                raise
            raise RuntimeError("the generator goes on after its error")

    def cache(function):
        """``functools.cache`` for positional arguments."""
        return lru_cache(maxsize=None)(function)

    def lru_cache(*, maxsize):
        """``functools.lru_cache`` for positional arguments; when it is full, the oldest result goes."""

        def decorate(function):
            kept = {}

            def cached(*args):
                try:
                    return kept[args]
                except KeyError:
                    pass
                made = function(*args)
                if maxsize is not None and len(kept) >= maxsize:
                    kept.pop(next(iter(kept), None), None)
                kept[args] = made
                return made

            cached.__name__, cached.__doc__ = function.__name__, function.__doc__
            cached.__wrapped__, cached.cache_clear = function, kept.clear
            return cached

        return decorate

    # -- NamedTuple ---------------------------------------------------------------------------------------------------

    _tuple = tuple.__new__
    _MAKERS = (
        lambda _cls: _tuple(_cls, ()),
        lambda _cls, a: _tuple(_cls, (a,)),
        lambda _cls, a, b: _tuple(_cls, (a, b)),
        lambda _cls, a, b, c: _tuple(_cls, (a, b, c)),
        lambda _cls, a, b, c, d: _tuple(_cls, (a, b, c, d)),
        lambda _cls, a, b, c, d, e: _tuple(_cls, (a, b, c, d, e)),
        lambda _cls, a, b, c, d, e, f: _tuple(_cls, (a, b, c, d, e, f)),
        lambda _cls, a, b, c, d, e, f, g: _tuple(_cls, (a, b, c, d, e, f, g)),
        lambda _cls, a, b, c, d, e, f, g, h: _tuple(_cls, (a, b, c, d, e, f, g, h)),
        lambda _cls, a, b, c, d, e, f, g, h, i: _tuple(_cls, (a, b, c, d, e, f, g, h, i)),
    )
    """How a class with that many fields makes an instance. Each such class gets a copy in which the parameters have its
    fields' names: what collections.namedtuple compiles from source, as quick to call, at none of the cost."""

    def _maker(names, defaults):
        """``__new__`` of a NamedTuple."""
        if len(names) < len(_MAKERS):
            code = _MAKERS[len(names)].__code__.replace(co_varnames=("_cls", *names), co_name="__new__")
            return type(_maker)(code, globals(), "__new__", tuple(defaults.values()))

        def __new__(_cls, *args, **given):
            values = defaults | given
            values.update(zip(names, args))  # noqa: B905  # too many are seen below
            if len(values) != len(names) or len(args) > len(names) or any(one in given for one in names[:len(args)]):
                raise TypeError(f"{_cls.__name__} has the fields {', '.join(names)}: got {len(args)} values and "
                                f"{', '.join(given) or 'no names'}")
            return _tuple(_cls, [values[name] for name in names])

        return __new__

    BY_ANY, BY_NAME = "POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"

    class _Signature:
        """``__signature__`` of a class whose fields are given by name, made when help() or the like asks."""

        def __init__(self, names, defaults, kind):
            self._names, self._defaults, self._kind = names, defaults, kind

        def __get__(self, record, kind):
            from inspect import Parameter, Signature

            return Signature([Parameter(name, getattr(Parameter, self._kind), default=self._defaults.get(
                name, Parameter.empty)) for name in self._names])

    def _make(cls, values):
        made = _tuple(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, got {len(made)}")
        return made

    def _replace(self, /, **changes):
        values, names = [*self], self._fields
        for name, value in changes.items():
            if name not in names:
                raise ValueError(f"{type(self).__name__} has no field {name}")
            values[names.index(name)] = value  # quicker than a look at each of 50 fields
        return self._make(values)

    def _asdict(self):
        return dict(zip(self._fields, self, strict=True))

    def _getnewargs(self):
        return tuple(self)

    def _repr_tuple(self):
        return f"{type(self).__name__}({', '.join([f'{name}={value!r}' for name, value in _asdict(self).items()])})"

    class _NamedTupleType(type):
        """Makes a plain subclass of tuple of each class below NamedTuple, as the one in ``typing`` does."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return type.__new__(cls, name, bases, namespace)
            names = tuple(namespace.get("__annotations__", ()))
            defaults = {field: namespace[field] for field in names if field in namespace}
            shared = {"_make": classmethod(_make), "_replace": _replace, "__replace__": _replace, "_asdict": _asdict,
                      "__getnewargs__": _getnewargs, "__repr__": _repr_tuple}
            getters = {field: _tuplegetter(index, field) for index, field in enumerate(names)}
            return type(name, (tuple,), shared | namespace | getters | {
                "__slots__": (), "_fields": names, "__match_args__": names, "_field_defaults": defaults,
                "__new__": _maker(names, defaults), "__signature__": _Signature(names, defaults, BY_ANY)})

    class NamedTuple(metaclass=_NamedTupleType):
        """``typing.NamedTuple``."""

    # -- dataclass ----------------------------------------------------------------------------------------------------

    class _Default:
        """Default value, default factory and repr flag of one dataclass field."""

        def __init__(self, factory, default, shown):
            self.factory, self.default, self.shown = factory, default, shown

    _NONE = object()

    def field(*, default=_NONE, default_factory=None, repr=True):
        """``dataclasses.field``."""
        return _Default(default_factory, default, repr)

    def dataclass(*, slots, frozen=False, kw_only=False):
        """``dataclasses.dataclass`` with ``slots=True``."""

        def decorate(cls):
            names = tuple(cls.__annotations__)
            said = {name: value if isinstance(value, _Default) else _Default(None, value, True)
                    for name in names if (value := cls.__dict__.get(name, _NONE)) is not _NONE}
            methods = {"__repr__": _repr_record, "__eq__": _equal, "__getstate__": _values, "__replace__": replace,
                       "__match_args__": () if kw_only else names, "__dataclass_fields__": _Fields(said, kw_only)}
            defaults = {name: one.factory or one.default for name, one in said.items()}
            methods["__signature__"] = _Signature(names, defaults, BY_NAME if kw_only else BY_ANY)
            if frozen:
                methods |= {"__hash__": _hash, "__setattr__": _refuse, "__delattr__": _refuse}
            kept = {key: value for key, value in cls.__dict__.items()
                    if key not in names and key not in ("__dict__", "__weakref__")}
            made = type(cls)(cls.__name__, cls.__bases__, methods | kept | {
                "__slots__": names, "_shown": tuple([one for one in names if one not in said or said[one].shown])})
            made.__qualname__ = cls.__qualname__
            puts = [(name, made.__dict__[name].__set__) for name in names]
            made.__init__ = _initializer(names, puts, said, kw_only, getattr(made, "__post_init__", None))
            made.__setstate__ = lambda self, state: [
                put(self, value) for (_, put), value in zip(puts, state, strict=True)] and None
            return made

        return decorate

    def _initializer(names, puts, said, kw_only, then):
        """``__init__`` of a dataclass."""
        defaults = {name: one.default for name, one in said.items() if one.factory is None}
        factories = [(name, one.factory) for name, one in said.items() if one.factory is not None]

        def __init__(self, *args, **given):
            values = defaults | given
            if args:
                if kw_only or len(args) > len(names) or any(one in given for one in names[:len(args)]):
                    raise TypeError(f"{type(self).__name__} takes its fields by name, each once")
                values.update(zip(names, args))  # noqa: B905  # there may be fewer values than names
            for name, factory in factories:
                if name not in values:
                    values[name] = factory()
            try:
                for name, put in puts:
                    put(self, values[name])
            except KeyError as error:
                raise TypeError(f"{type(self).__name__} needs {error}") from None
            if len(values) != len(names):
                raise TypeError(f"{type(self).__name__} has no field {', '.join(given.keys() - {*names})}")
            if then is not None:
                then(self)

        return __init__

    class _Fields:
        """``__dataclass_fields__``, made when somebody asks: the functions of ``dataclasses`` take our records too."""

        def __init__(self, said, kw_only):
            self._said, self._kw_only = said, kw_only

        def __get__(self, record, kind):
            import dataclasses

            def told(one):
                what = {"default": one.default} if one.factory is None else {"default_factory": one.factory}
                return dataclasses.field(**what, repr=one.shown)

            rows = [(name, hint, told(self._said[name])) if name in self._said else (name, hint)
                    for name, hint in kind.__annotations__.items()]
            kind.__dataclass_fields__ = dataclasses.make_dataclass(
                kind.__name__, rows, kw_only=self._kw_only).__dataclass_fields__
            return kind.__dataclass_fields__

    def _values(self):
        return [getattr(self, name) for name in self.__slots__]

    def _hash(self):
        return hash(tuple(_values(self)))

    def _equal(self, other):
        return _values(self) == _values(other) if type(other) is type(self) else NotImplemented

    def _refuse(self, name, value=None):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot change field {name!r}")

    def _repr_record(self):
        return f"{type(self).__qualname__}({', '.join([f'{name}={getattr(self, name)!r}' for name in self._shown])})"

    def replace(record, /, **changes):
        """``dataclasses.replace``."""
        return type(record)(**dict(zip(record.__slots__, _values(record), strict=True)) | changes)

    # -- StrEnum ------------------------------------------------------------------------------------------------------

    class _StrEnumType(type):
        def __new__(cls, name, bases, namespace):
            words = {key: value for key, value in namespace.items() if key[0] != "_" and type(value) is str}
            made = type.__new__(cls, name, bases, {key: namespace[key] for key in namespace if key not in words})
            made.__members__ = {}
            for key, value in words.items():
                member = str.__new__(made, value)
                member.name, member.value = key, value
                made.__members__[key] = member
                type.__setattr__(made, key, member)
            return made

        def __call__(cls, value):
            for member in cls:
                if member.value == value:
                    return member
            raise ValueError(f"{value!r} is not a valid {cls.__qualname__}")

        def __iter__(cls):
            return iter(cls.__members__.values())

        def __len__(cls):
            return len(cls.__members__)

        def __getitem__(cls, name):
            return cls.__members__[name]

    class StrEnum(str, metaclass=_StrEnumType):
        """``enum.StrEnum`` with a text for each member."""

        __str__ = str.__str__

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

        def __reduce__(self):
            return type(self), (self.value,)


def field_names(kind: type) -> tuple[str, ...]:
    """The names of a dataclass's fields, in order; the class has ``slots=True``."""
    return tuple(kind.__dict__["__slots__"])


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15, or ``signal 99`` when the number has no name."""
    return SIGNALS.get(number, f"signal {number}")


SIGNALS = {int(getattr(signal, name)): name for name in reversed(dir(signal))
           if name.startswith("SIG") and name[3] != "_" and name not in ("SIGCLD", "SIGPOLL", "SIGIOT")}
"""Signals by number, under the name that signal(7) gives first; of the real-time signals the first and the last."""
