"""The SQL queries of a catalog. Every row of a version has the same columns in the same order."""

ONE = """
SELECT versions.id, versions.name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked,
    attributes
FROM directories JOIN versions ON versions.directory = directories.id
WHERE directories.path = :directory AND versions.name = :name
    AND first <= :position AND (last IS NULL OR last >= :position)
"""
ALL = """
SELECT versions.id, versions.name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked,
    attributes
FROM directories JOIN versions ON versions.directory = directories.id
WHERE directories.path = :directory AND versions.name = :name ORDER BY first
"""
PAGE_OF_DIRECTORY = """
SELECT versions.id, versions.name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked,
    attributes
FROM directories JOIN versions ON versions.directory = directories.id
WHERE directories.path = :directory AND versions.name > :name
    AND first <= :position AND (last IS NULL OR last >= :position)
ORDER BY versions.name LIMIT :limit
"""
NAMES = """
SELECT DISTINCT versions.name FROM directories JOIN versions ON versions.directory = directories.id
WHERE directories.path = :directory AND versions.name > :name ORDER BY versions.name LIMIT :limit
"""
OLDEST_CHECKED = """
SELECT versions.id, versions.name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked,
    attributes, directories.path
FROM versions JOIN directories ON directories.id = versions.directory
WHERE kind = 0 ORDER BY checked LIMIT :limit
"""
WITH_CHECKSUM = """
SELECT versions.id, versions.name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked,
    attributes, directories.path
FROM versions JOIN directories ON directories.id = versions.directory WHERE kind = 0 AND checksum = :checksum
"""
DIFFERING = """
CREATE TEMP TABLE IF NOT EXISTS differing (
    run INTEGER, number INTEGER, is_after INTEGER, directory BLOB, id INTEGER, name BLOB, first INTEGER, last INTEGER,
    kind INTEGER, size INTEGER, mode INTEGER, uid INTEGER, gid INTEGER, mtime_ns INTEGER, checksum BLOB,
    link_target BLOB, checked INTEGER, attributes BLOB, PRIMARY KEY (run, number)
) WITHOUT ROWID;
"""
FILL_DIFFERING = """
INSERT INTO temp.differing
SELECT :run, row_number() OVER (ORDER BY directories.path, name, is_after), is_after, directories.path,
    version, name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked, attributes
FROM (
    SELECT :is_back AS is_after, id AS version, directory, name, first, last, kind, size, mode, uid, gid, mtime_ns,
        checksum, link_target, checked, attributes
    FROM versions WHERE last >= :older AND last < :newer AND first <= :older
    UNION ALL
    SELECT NOT :is_back, id, directory, name, first, last, kind, size, mode, uid, gid, mtime_ns,
        checksum, link_target, checked, attributes
    FROM versions WHERE first > :older AND first <= :newer AND (last IS NULL OR last >= :newer)
) JOIN directories ON directories.id = directory
"""
PAGE_OF_DIFFERING = """
SELECT number, is_after, directory, id, name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target,
    checked, attributes
FROM temp.differing WHERE run = :run AND number > :number ORDER BY number LIMIT :limit
"""
