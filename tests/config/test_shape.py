"""The shape of a file follows from its keys."""

from shadowcat.config.kind import TEXT
from shadowcat.config.setting import Setting
from shadowcat.config.shape import shape_of


def test_keys_make_tables_arrays_and_names():
    keys = ["a.b", "a.c", "d.*.e", "d.*.f[].g"]
    root = shape_of(Setting(key=key, kind=TEXT, help="") for key in keys)

    assert [*root.named] == ["a", "d"]
    assert [*root.named["a"].named] == ["b", "c"]
    server = root.named["d"].anything
    assert server is not None
    assert [*server.named] == ["e", "f"]
    each = server.named["f"].each
    assert each is not None
    assert each.named["g"].setting is not None
    assert each.named["g"].setting.key == "d.*.f[].g"


def test_what_is_no_part_of_a_file_has_no_place():
    assert shape_of([Setting(key="a.b", kind=TEXT, help="", in_file=False)]).named == {}
