-- Schema 1. Never edit a released migration: its checksum is recorded in every store made with it.
-- Units are in the column names. NULL means "not measured". Text columns named after plural nouns
-- (flags, environment, details, ...) hold canonical JSON; `hwnas store check` parses it (with an untrusted
-- schema SQLite 3.40 refuses its own JSON functions in a CHECK).

CREATE TABLE schema_migration (
  version INTEGER PRIMARY KEY CHECK (version > 0),
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
  applied_at TEXT NOT NULL
) STRICT;

CREATE TABLE architecture (
  id TEXT PRIMARY KEY CHECK (id <> ''),
  space TEXT NOT NULL,                -- 'file' for a user's own model
  arch TEXT NOT NULL,                 -- official string or file name
  genotype TEXT NOT NULL CHECK (substr(genotype, 1, 1) = '[')
) STRICT;

CREATE TABLE artifact (
  sha256 TEXT PRIMARY KEY CHECK (length(sha256) = 64),
  format TEXT NOT NULL,
  arch_id TEXT NOT NULL REFERENCES architecture (id),
  folded INTEGER NOT NULL CHECK (folded IN (0, 1)),
  producer TEXT NOT NULL,
  size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
  path TEXT NOT NULL,                 -- where the file lay on this host when last seen
  input_shapes TEXT NOT NULL CHECK (substr(input_shapes, 1, 1) = '{')
) STRICT;

CREATE TABLE device (
  id TEXT PRIMARY KEY CHECK (id <> ''),
  name TEXT NOT NULL,
  uri TEXT NOT NULL,
  family TEXT NOT NULL,
  soc TEXT NOT NULL,
  cores INTEGER NOT NULL,
  memory_mib INTEGER NOT NULL,
  machine TEXT NOT NULL CHECK (machine IN ('bare', 'virtualised', 'emulated')),
  runtimes TEXT NOT NULL CHECK (substr(runtimes, 1, 1) = '{'),
  power_source TEXT,
  power_reason TEXT,
  details TEXT NOT NULL CHECK (substr(details, 1, 1) = '{')
) STRICT;

CREATE TABLE settings (
  id TEXT PRIMARY KEY CHECK (id <> ''),
  name TEXT NOT NULL,
  content TEXT NOT NULL CHECK (substr(content, 1, 1) = '{')
) STRICT;

CREATE TABLE run (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE CHECK (id <> ''),
  kind TEXT NOT NULL,
  plan TEXT NOT NULL CHECK (substr(plan, 1, 1) = '{'),
  plan_hash TEXT NOT NULL CHECK (length(plan_hash) = 64),
  seed INTEGER,
  created_at TEXT NOT NULL,
  finished_at TEXT,
  result TEXT CHECK (substr(result, 1, 1) = '{')
) STRICT;

-- One unfinished run of a plan at a time: starting it again means going on with it.
CREATE UNIQUE INDEX run_unfinished ON run (kind, plan_hash) WHERE finished_at IS NULL;

CREATE TRIGGER run_is_written_once BEFORE UPDATE ON run
WHEN old.finished_at IS NOT NULL
  OR new.id <> old.id OR new.kind <> old.kind OR new.plan <> old.plan
  OR new.plan_hash <> old.plan_hash OR new.created_at <> old.created_at
BEGIN
  SELECT RAISE(ABORT, 'a run can only be finished, once');
END;

CREATE TRIGGER run_is_kept BEFORE DELETE ON run
BEGIN
  SELECT RAISE(ABORT, 'runs are never deleted');
END;

-- Work handed to a board whose results are not stored yet.
CREATE TABLE job (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE CHECK (id <> ''),
  run_id TEXT NOT NULL REFERENCES run (id),
  device_id TEXT NOT NULL REFERENCES device (id),
  payload TEXT NOT NULL CHECK (substr(payload, 1, 1) = '{'),
  created_at TEXT NOT NULL
) STRICT;

CREATE INDEX job_run ON job (run_id);

CREATE TABLE measurement (
  id INTEGER PRIMARY KEY,
  run_id TEXT NOT NULL REFERENCES run (id),
  item TEXT NOT NULL CHECK (item <> ''),
  attempt INTEGER NOT NULL CHECK (attempt >= 1),
  arch_id TEXT NOT NULL REFERENCES architecture (id),
  artifact_sha256 TEXT REFERENCES artifact (sha256),  -- NULL: no file was deployed (replay)
  device_id TEXT NOT NULL REFERENCES device (id),
  settings_id TEXT NOT NULL REFERENCES settings (id),
  origin TEXT NOT NULL CHECK (origin IN ('measured', 'simulated', 'imported', 'predicted')),
  status TEXT NOT NULL CHECK (status IN ('valid', 'invalid')),
  latency_ms REAL CHECK (latency_ms > 0),
  latency_p90_ms REAL CHECK (latency_p90_ms > 0),
  latency_iqr_ms REAL CHECK (latency_iqr_ms >= 0),
  ci95_ms REAL CHECK (ci95_ms >= 0),
  first_ms REAL CHECK (first_ms >= 0),
  load_ms REAL CHECK (load_ms >= 0),
  energy_mj REAL CHECK (energy_mj > 0),
  energy_net_mj REAL,                 -- may be negative: idle power is subtracted
  energy_reason TEXT,
  peak_memory_mib REAL CHECK (peak_memory_mib > 0),
  n_samples INTEGER NOT NULL CHECK (n_samples >= 0),
  flags TEXT NOT NULL CHECK (substr(flags, 1, 1) = '['),
  environment TEXT NOT NULL CHECK (substr(environment, 1, 1) = '{'),
  details TEXT NOT NULL CHECK (substr(details, 1, 1) = '{'),
  measured_at TEXT NOT NULL,
  UNIQUE (run_id, item, attempt),
  CHECK (latency_ms IS NOT NULL OR status = 'invalid')
) STRICT;

-- Done is derived: an item is done when its valid measurement exists, and there is only one.
CREATE UNIQUE INDEX measurement_done ON measurement (run_id, item) WHERE status = 'valid';
CREATE INDEX measurement_device ON measurement (device_id, arch_id);
CREATE INDEX measurement_arch ON measurement (arch_id);
CREATE INDEX measurement_artifact ON measurement (artifact_sha256);

CREATE TRIGGER measurement_is_never_changed BEFORE UPDATE ON measurement
BEGIN
  SELECT RAISE(ABORT, 'measurements are append-only');
END;

CREATE TRIGGER measurement_is_never_deleted BEFORE DELETE ON measurement
BEGIN
  SELECT RAISE(ABORT, 'measurements are append-only');
END;

-- A number taken under emulation must not turn into a label because the device was described anew.
CREATE TRIGGER device_stays_emulated BEFORE UPDATE OF machine ON device
WHEN old.machine = 'emulated' AND new.machine <> 'emulated'
  AND EXISTS (SELECT 1 FROM measurement WHERE device_id = old.id)
BEGIN
  SELECT RAISE(ABORT, 'an emulated device stays emulated');
END;

-- All raw samples of one measurement; `encoding` names the byte format (store/samples.py).
CREATE TABLE samples (
  measurement_id INTEGER PRIMARY KEY REFERENCES measurement (id),
  encoding TEXT NOT NULL,
  block_lengths TEXT NOT NULL CHECK (substr(block_lengths, 1, 1) = '['),
  data BLOB NOT NULL
) STRICT;

CREATE TRIGGER samples_are_never_changed BEFORE UPDATE ON samples
BEGIN
  SELECT RAISE(ABORT, 'samples are append-only');
END;

CREATE TRIGGER samples_are_never_deleted BEFORE DELETE ON samples
BEGIN
  SELECT RAISE(ABORT, 'samples are append-only');
END;

CREATE TABLE model (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE CHECK (id <> ''),
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  card TEXT NOT NULL CHECK (substr(card, 1, 1) = '{'),
  weights_sha256 TEXT NOT NULL CHECK (length(weights_sha256) = 64),
  path TEXT,
  created_at TEXT NOT NULL
) STRICT;
