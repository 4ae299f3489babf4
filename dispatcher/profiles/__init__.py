"""Which providers this installation can be: profiles, one data file each. Pure.

`load_catalog` reads them and refuses a broken one with file, line, field, what was found and what is allowed. What a
profile declares is `dispatcher.model.profile.Profile`.
"""

from __future__ import annotations

from dispatcher.datafile import LintReport, LintWarning
from dispatcher.model.endpoint import REGISTRATION_FIELDS
from dispatcher.model.profile import Profile
from dispatcher.profiles.catalog import Catalog, ProfileFile, lint, load_catalog, load_profile, shipped_profiles_dir
from dispatcher.profiles.profile_file import FIELDS, Known, SchemeFacts, as_document

__all__ = [
    "FIELDS",
    "REGISTRATION_FIELDS",
    "Catalog",
    "Known",
    "LintReport",
    "LintWarning",
    "Profile",
    "ProfileFile",
    "SchemeFacts",
    "as_document",
    "lint",
    "load_catalog",
    "load_profile",
    "shipped_profiles_dir",
]
