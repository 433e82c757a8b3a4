"""Identity of machines and storages: secrets, registration, rotation, re-enrolment, and limits on attempts."""
