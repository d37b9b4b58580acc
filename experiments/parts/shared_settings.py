"""Settings that several stages share: set once in a group, to which each stage's field refers."""

from ml_collections import ConfigDict, FieldReference


def shared(group: ConfigDict, name: str) -> FieldReference:
    """Returns a reference to a group's field.

    Overriding the group's field changes every stage that refers to it, overriding a stage's own field that stage alone.
    """
    return group.get_ref(name).identity()


def all_shared(group: ConfigDict) -> dict[str, FieldReference]:
    """Returns a reference to each field of a group; see `shared`."""
    return {name: shared(group, name) for name in group}
