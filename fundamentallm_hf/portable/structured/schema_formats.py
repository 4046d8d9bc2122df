"""The string formats that llguidance knows, as regular expressions for whole strings.

They allow at least what llguidance allows, and sometimes more (a day too many): llguidance checks the results.
"""

_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_HOURS = r"T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)"
_DAYS = r"([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL})*"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"({_BYTE}\.){{3}}{_BYTE}"
_HEX = r"[0-9A-Fa-f]{1,4}"
# Eight groups, or fewer around the two colons that represent groups of zeros.
_IPV6 = "|".join(
    [f"({_HEX}:){{7}}{_HEX}"]
    + [f"({_HEX}(:{_HEX}){{0,{left - 1}}})?::({_HEX}(:{_HEX}){{0,{6 - left}}})?" for left in range(1, 7)]
    + [f"::({_HEX}(:{_HEX}){{0,6}})?", f"({_HEX}:){{1,7}}:"]
)
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_SAFE = r"[A-Za-z0-9._~!$&'()*+,;=:@/?#-]"
_LITERAL = rf"\[({_IPV6}|v[0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\](:[0-9]*)?([/?#]({_SAFE}|%[0-9A-Fa-f]{{2}})*)?"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}[Tt]{_TIME}",
    "duration": f"P({_DAYS}({_HOURS})?|{_HOURS}|[0-9]+W)",
    "email": rf"{_ATOM}(\.{_ATOM})*@({_HOST}|\[{_IPV4}\])",
    "hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uuid": r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "uri": rf"[A-Za-z][A-Za-z0-9+.-]*:(({_SAFE}|%[0-9A-Fa-f]{{2}})*|//({_SAFE}*@)?{_LITERAL})",
    "unknown": r"[\s\S]*",
}
# Characters that end any text of a format from anywhere in it: more than the longest, an IPv6 address, needs.
LONGEST_OF_FORMAT = 48
