"""Every check by its name, in the order in which they run."""

import access
import life
import messages
import transport

ALL = {
    check.__name__.rstrip("_"): check
    for module in (messages, access, transport, life)
    for check in module.ALL
}
