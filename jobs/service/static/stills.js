// Single frames, made by the server, in the place of a video that the browser does not play.

export class Stills {
  /** `addressOf(timestep)` is that of a picture; `onFailure(address)` is called where the first cannot be had. */
  constructor(image, addressOf, onFailure) {
    Object.assign(this, { image, addressOf, asked: null, wanted: null, isLoading: false, hasShown: false });
    image.addEventListener("load", () => {
      this.hasShown = true;
      this.loaded();
    });
    image.addEventListener("error", () => (this.hasShown ? this.loaded() : onFailure(this.addressOf(this.asked))));
  }

  /** One is asked for at a time: of those that were wanted meanwhile the last follows. */
  showAt(timestep) {
    this.wanted = timestep;
    if (!this.isLoading) this.ask();
  }

  ask() {
    if (this.wanted === this.asked) return;
    this.isLoading = true;
    this.asked = this.wanted;
    this.image.src = this.addressOf(this.asked);
  }

  loaded() {
    this.isLoading = false;
    this.ask();
  }
}
