"""Personal information: contacts, events, messages and notes, and the files that they come in and go out as.

    from atop import Store
    from atop.pim import Contact, import_file, export_pool

    with Store("~/pim") as store:
        report = import_file(store, "contacts.vcf")
        export_pool(store, "contacts", "contacts.csv")

Needs the extra `pim` only where a calendar names a zone that is not an IANA one, and where one is exported.
"""

from atop.pim.exporting import ExportFormat, ExportReport, export_pool
from atop.pim.importing import import_file
from atop.pim.items import POOLS, Contact, Event, Message, Note, open_pool
from atop.pim.report import Report, Skipped
from atop.pim.sniffing import Format, sniff

__all__ = [
    "POOLS",
    "Contact",
    "Event",
    "ExportFormat",
    "ExportReport",
    "Format",
    "Message",
    "Note",
    "Report",
    "Skipped",
    "export_pool",
    "import_file",
    "open_pool",
    "sniff",
]
