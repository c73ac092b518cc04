// What the image of the Kubernetes Basics tutorial runs, told in its own language.
// Here a small Python program stands for it and gives the same answers: see server.py of this image.
const http = require('http');
const os = require('os');

const version = process.env.APP_VERSION;
const server = http.createServer((request, response) => {
  response.end(`Hello Kubernetes bootcamp! | Running on: ${os.hostname()} | v=${version}\n`);
});
server.listen(8080);
