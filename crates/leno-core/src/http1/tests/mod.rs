mod bodies;
mod encoding;
mod limits;
mod scanning;
mod smoke;
