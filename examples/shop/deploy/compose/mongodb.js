// MongoDB runs this once, when its data folder is new: the user of the users service, who may use its database alone.
const password = require('fs').readFileSync('/run/secrets/users_password', 'utf8').trim();
db.getSiblingDB('users').createUser({user: 'users', pwd: password, roles: [{role: 'readWrite', db: 'users'}]});
