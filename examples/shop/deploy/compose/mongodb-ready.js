// The health check of MongoDB: makes the replica set of one node at the first run, and fails until that node is primary.
db.getSiblingDB('admin').auth('root', require('fs').readFileSync('/run/secrets/mongodb_password', 'utf8').trim());
try {
  rs.status();
} catch (e) {
  if (e.codeName !== 'NotYetInitialized') throw e;
  rs.initiate({_id: 'rs0', members: [{_id: 0, host: 'mongodb:27017'}]});
}
if (!db.hello().isWritablePrimary) quit(1);
