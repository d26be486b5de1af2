//! `leno demo`: the example shop's three services. They are ordinary HTTP services that know nothing of Leno: a
//! port, an ordinary HTTP client that obeys the ordinary proxy variables, and a name and a version to show in
//! their answers.

mod answer;
mod cart;
mod peer;
mod product;
mod serve;
mod user;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use crate::failure::Failure;

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct DemoArgs {
    /// Which service.
    #[arg(value_enum)]
    service: Service,
    /// The port to listen on; 0: any free one.
    #[arg(long, env = "PORT")]
    port: u16,
    /// The address to listen on.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// The instance's name, shown in every answer [default: the service's name].
    #[arg(long, env = "INSTANCE", value_name = "NAME")]
    instance: Option<String>,
    /// The version, shown in every answer.
    #[arg(long, env = "VERSION", default_value = "v1")]
    version: String,
}

/// The shop's services.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Service {
    /// Who buys: GET /users/1 asks product and cart.
    User,
    /// What is sold: GET /products, GET /products/1.
    Product,
    /// What is about to be bought: GET /cart/1, POST /cart/1/items asks product for the price.
    Cart,
}

impl DemoArgs {
    /// Serves until SIGTERM or SIGINT.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let service = match self.service {
            Service::User => "user",
            Service::Product => "product",
            Service::Cart => "cart",
        };
        let server = answer::Server {
            service,
            instance: self.instance.unwrap_or_else(|| service.to_owned()),
            version: self.version,
        };
        let routes = match self.service {
            Service::User => user::routes(server),
            Service::Product => product::routes(server),
            Service::Cart => cart::routes(server),
        };
        serve::until_told(SocketAddr::new(self.bind, self.port), routes)?;
        Ok(ExitCode::SUCCESS)
    }
}
