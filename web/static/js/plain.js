// A page of an analysis that has nothing but its view.
import { ViewPage } from "./view.js";

new ViewPage();
