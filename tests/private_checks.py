"""The checks of what is relied on in other libraries, each entered under its name in `private_interfaces.py`."""

CHECKS = {}


def relied_on(of, name):
    """Enter a check of the interface `name` of the library `of`."""

    def enter(check):
        CHECKS[(of, name)] = check
        return check

    return enter
